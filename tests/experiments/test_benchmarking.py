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


def test_only_what_ran_on_a_device_counts():
    names = [("process_name", 1, "/device:GPU:0"), ("process_name", 2, "/host:CPU")]
    events = [{"name": n, "pid": pid, "args": {"name": value}} for n, pid, value in names]
    events += [{"name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "Stream #7"}}]
    events += [{"name": "gemm", "ph": "X", "pid": 1, "tid": 7, "dur": 1500}]
    events += [{"name": "python", "ph": "X", "pid": 2, "tid": 1, "dur": 9000}]
    assert list(trace.kernels({"traceEvents": events})) == [("gemm", 1.5)]
