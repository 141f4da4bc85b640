"""The benchmark's own parts: comparison with an earlier file, and kernels of a trace by kind."""

import json

import pytest

from experiments.benchmarking import comparison, trace


def test_a_row_is_compared_with_the_same_case_and_batch(tmp_path):
    path = tmp_path / "before.jsonl"
    rows = [{"case": "a", "batch": 1, "ms": 8.0}, {"case": "a", "batch": 2, "ms": 10.0}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n  ms: 1 -> 2 (2.00×)\n")
    earlier = comparison.read(str(path))
    row = {"case": "a", "batch": 2, "ms": 5.0, "load_average": 1.0, "new": 3}
    assert list(comparison.ratios(row, earlier)) == ["ms: 10.0 -> 5.0 (0.50×)"]
    assert not list(comparison.ratios({"case": "b", "ms": 1.0}, earlier))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "x").write_text('{"case": "a"}\n{"case"\n')
    with pytest.raises(ValueError, match="line 2"):
        comparison.read(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_sm90_tst_128x160_64x5_2x1_v_bz_NNT", "products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "attention"),
        ("void cudnn::fusion::compute_dot_do_o_specialized<true, 64>", "attention"),
        ("void cudnn::fusion::convert_dq_to_16bits<true>", "attention"),
        ("loop_dynamic_update_slice_fusion_64", "copies"),
        ("loop_slice_fusion_96", "copies"),
        ("memcpy128", "copies"),
        ("loop_broadcast_fusion_21", "zero-filling"),
        ("ncclDevKernel_AllReduce_Sum", "collectives"),
        ("loop_add_multiply_fusion_1", "element-wise"),
        ("input_reduce_fusion_73", "reductions and norms"),
        ("_norm_backward_kernel", "reductions and norms"),
        ("_gate_backward_kernel", "element-wise"),
    ],
)
def test_kernels_are_grouped_by_name(kernel, kind):
    assert trace.kind(kernel) == kind


def test_only_what_ran_on_a_device_counts():
    names = [("process_name", 1, "/device:GPU:0"), ("process_name", 2, "/host:CPU")]
    events = [{"name": n, "pid": pid, "args": {"name": value}} for n, pid, value in names]
    events += [{"name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "Stream #7"}}]
    events += [{"name": "gemm", "ph": "X", "pid": 1, "tid": 7, "dur": 1500}]
    events += [{"name": "python", "ph": "X", "pid": 2, "tid": 1, "dur": 9000}]
    assert list(trace.kernels({"traceEvents": events})) == [("gemm", 1.5)]
