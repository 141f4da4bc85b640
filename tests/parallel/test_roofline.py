"""What kernels of a GPU's program read, write and multiply, and the least time of that."""

import pytest

from fourm_jax.parallel import collectives, gpu_kernels, gpus, hlo, roofline

H200 = gpus.GPUS["h200"]

HLO = """HloModule step

%fused_row (table: f32[100,8], at: s32[]) -> f32[1,8] {
  %table = f32[100,8]{1,0} parameter(0)
  %as_is = f32[800]{0} bitcast(%table)
  %back = f32[100,8]{1,0} bitcast(%as_is)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,8]{1,0} dynamic-slice(%back, %at, %zero), dynamic_slice_sizes={1,8}
}

%fused_store (stack: bf16[24,64], one: f32[1,64], at: s32[]) -> bf16[24,64] {
  %stack = bf16[24,64]{1,0} parameter(0)
  %one = f32[1,64]{1,0} parameter(1)
  %narrow = bf16[1,64]{1,0} convert(%one)
  %at = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %stored = bf16[24,64]{1,0} dynamic-update-slice(%stack, %narrow, %at, %zero)
}

%fused_fresh (one: f32[1,64]) -> f32[24,64] {
  %one = f32[1,64]{1,0} parameter(0)
  %zero = f32[] constant(0)
  %empty = f32[24,64]{1,0} broadcast(%zero), dimensions={}
  %at = s32[] constant(0)
  ROOT %stored = f32[24,64]{1,0} dynamic-update-slice(%empty, %one, %at, %at)
}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%fused_scatter (table: f32[100,8], at: s32[4,1], rows: f32[4,8]) -> f32[100,8] {
  %table = f32[100,8]{1,0} parameter(0)
  %at = s32[4,1]{1,0} parameter(1)
  %rows = f32[4,8]{1,0} parameter(2)
  ROOT %added = f32[100,8]{1,0} scatter(%table, %at, %rows), to_apply=%add
}

%gemm (x: bf16[32,64], w: bf16[64,16]) -> (f32[32,16], f32[32]) {
  %x = bf16[32,64]{1,0} parameter(0)
  %w = bf16[64,16]{1,0} parameter(1)
  %product = f32[32,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %norms = f32[32]{0} reduce(%product, %zero), dimensions={1}, to_apply=%add
  ROOT %both = (f32[32,16]{1,0}, f32[32]{0}) tuple(%product, %norms)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %copy.1 = f32[8]{0} copy(%x)
  ROOT %next = (s32[], f32[8]{0}) tuple(%i, %copy.1)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  ROOT %lt = pred[] fusion(%i, %limit), kind=kLoop, calls=%compare
}

%short (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %wrapped_add.1 = f32[8]{0} add(%q, %q)
}

%long (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  %wrapped_add.2 = f32[8]{0} add(%q, %q)
  ROOT %wrapped_add.3 = f32[8]{0} add(%wrapped_add.2, %wrapped_add.2)
}

ENTRY %main (table: f32[100,8], at: s32[]) -> f32[8] {
  %table = f32[100,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %loop_slice_fusion = f32[1,8]{1,0} fusion(%table, %at), kind=kLoop, calls=%fused_row
  %store = bf16[24,64]{1,0} fusion(%stack, %one, %at), kind=kLoop, calls=%fused_store
  %far-start = ((bf16[24,64]{1,0:S(5)}, f32[1,64]{1,0}, s32[]), bf16[24,64]{1,0:S(5)}, u32[]) \
fusion-start(%stack, %one, %at), kind=kLoop, calls=%fused_store
  %far-done = bf16[24,64]{1,0:S(5)} fusion-done(%far-start)
  %fresh = f32[24,64]{1,0} fusion(%one), kind=kLoop, calls=%fused_fresh
  %input_scatter_fusion = f32[100,8]{1,0} fusion(%table, %ats, %rows), kind=kInput, \
calls=%fused_scatter
  %gemm_fusion_dot.1 = (f32[32,16]{1,0}, f32[32]{0}) fusion(%x, %w), kind=kCustom, calls=%gemm, \
metadata={op_name="fc1"}
  %dynamic_slice_fusion.1 = (f32[32,16]{1,0}, f32[32]{0}) fusion(%x, %w), kind=kCustom, calls=%gemm
  %bitcast.9 = f32[8]{0} bitcast(%loop_slice_fusion)
  %while.1 = (s32[], f32[8]{0}) while(%t), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %while.2 = (s32[], f32[8]{0}) while(%t), condition=%condition, body=%body
  %cond.1 = f32[8]{0} conditional(%at, %bitcast.9, %bitcast.9), branch_computations={%long, %short}
  %q = bf16[2,4,16,8]{3,2,1,0} parameter(2)
  %attend.1 = (bf16[2,4,16,8]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q), \
custom_call_target="__cudnn$fmhaSoftmax", backend_config={"cudnn_fmha_backend_config": \
{"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "4", "16", "32"]}}}
  %all-reduce.1 = f32[8]{0} all-reduce(%bitcast.9), channel_id=1, to_apply=%add
  ROOT %pallas_call.1 = f32[8]{0} custom-call(%bitcast.9), \
custom_call_target="__gpu$xla.gpu.triton", backend_config={grid_x = 1 : i32, name = "norm_forward"}
}
"""


def found():
    program = hlo.parse(HLO)
    return {one.name: one for one in gpu_kernels.read(program, H200)}


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        ("loop_slice_fusion", 32 + 4 + 32),  # the row, its place, the row: not the table
        ("store", 4 * 64 + 4 + 2 * 64),  # one layer of a stack is read and written, in place
        ("fresh", 4 * 64 + 4 * 24 * 64),  # a stack of its own is written as a whole
        ("input_scatter_fusion", 16 + 128 + 2 * 128),  # rows are read, and those they are added to
        ("gemm_fusion_dot.1", 2 * 32 * 64 + 2 * 64 * 16 + 4 * 32 * 16 + 4 * 32),
        ("norm_forward pallas_call.1", 64),
    ],
)
def test_a_kernel_reads_what_it_needs_and_writes_what_changes(name, num_bytes):
    assert found()[name].num_bytes == num_bytes


def test_what_is_kept_by_the_host_crosses_once_and_is_started_once():
    kernels = found()
    assert kernels["far-start"].kind == "host memory"
    assert kernels["far-start"].num_bytes == (4 * 64 + 4 + 2 * 64) / 2
    assert kernels["far-start"].seconds(H200) == kernels["far-start"].num_bytes / 64e9
    assert "far-done" not in kernels


def test_products_and_attention_are_counted():
    kernels = found()
    assert kernels["gemm_fusion_dot.1"].flops == 2 * 32 * 64 * 16
    assert kernels["gemm_fusion_dot.1"].source == "fc1"
    assert kernels["dynamic_slice_fusion.1"].kind == "products"  # a library's, that reads a slice
    assert kernels["__cudnn$fmhaSoftmax attend.1"].flops == 2 * 2 * (2 * 4 * 16 * 32) * 8


def test_a_loop_runs_its_kernels_as_often_as_it_says_and_one_that_does_not_say_once():
    program = hlo.parse(HLO)
    copies = [one for one in gpu_kernels.read(program, H200) if one.name == "copy.1"]
    assert [(one.count, one.num_bytes) for one in copies] == [(3, 3 * 64), (1, 64)]
    assert gpu_kernels.num_open_loops(program) == 1


def test_rounds_of_an_open_loop_can_be_said():
    kernels = roofline.report(hlo.parse(HLO), H200, open_rounds=6)["least_ms"]["copies"]["kernels"]
    assert kernels == 10  # a slice, three rounds of a copy that are known, six that are not


def test_the_host_waits_for_branches_and_before_and_after_every_round_of_an_open_loop():
    program = hlo.parse(HLO)
    assert gpu_kernels.num_answers(program) == 1 + 2
    assert gpu_kernels.num_answers(program, open_rounds=6) == 1 + 7


def test_the_longest_branch_counts():
    assert {name for name in found() if "wrapped_add" in name} == {"wrapped_add.2", "wrapped_add.3"}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_sm90_tst_128x160_64x5_2x1_v_bz_NNT", "products"),
        ("gemm_fusion_dot_128", "products"),
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
        ("norm_backward pallas_call.3", "reductions and norms"),
        ("_gate_backward_kernel", "element-wise"),
        ("input_scatter_fusion.2", "lookups"),
        ("something", "other"),
    ],
)
def test_kernels_are_grouped_by_name(kernel, kind):
    assert gpu_kernels.kind(kernel) == kind


def test_the_least_time_is_that_of_bytes_or_of_products_whichever_is_longer():
    program = hlo.parse(HLO)
    kernel = gpu_kernels.Kernel(
        name="gemm", kind="products", count=1, num_bytes=4.8e9, flops=989e9, source=""
    )
    assert kernel.seconds(H200) == pytest.approx(1e-3)  # both
    sent = collectives.read(program, num_devices=8)
    row = roofline.report(program, H200, sent)
    groups = row["least_ms"]
    assert groups["collectives"]["kernels"] == 1
    assert (
        groups["copies"]["kernels"] == 5
    )  # a slice, three rounds of a copy, one of unknown length
    assert groups["sum"]["kernels"] == 16
    assert row["open_loops"] == 1
    largest = row["largest_kernels"][0]
    assert (largest["name"], largest["kind"]) == ("gemm_fusion_dot.1", "products")
