"""The table of topologies: its cases, what is tried when one does not fit, its text in the docs."""

import pathlib

import pytest
from etils import epath

from fourm_jax.jobs import topology_table

ROOT = pathlib.Path(__file__).parents[2]
GIB = 2**30
FITS = {
    "case": "mod21/base/v5e:4x4",
    "changes": ["model.remat=full"],
    "fits": True,
    "remat": "full",
    "scan_unroll": 12,
    "accumulate_steps": 2,
    "batch_size": 4096,
    "mesh": {"data": 4, "fsdp": 4, "tensor": 1},
    "memory_bytes": 16 * GIB,
    "bytes": 11 * GIB,
    "argument_bytes": 3 * GIB,
    "temporary_bytes": 8 * GIB,
    "wire_bytes": 25e9,
    "wire_bytes_of_fsdp": 22.3e9,
    "compile_s": 281.6,
}
REFUSED = {**FITS, "fits": False, "remat": "names", "accumulate_steps": 1, "bytes": 36 * GIB}


def test_parameters_are_cut_along_the_last_axis_of_the_slice():
    assert len(topology_table.cases()) == 36 + 9
    (case,) = topology_table.cases(["mod7/xlarge/v5p"])
    assert topology_table.settings(case, ["model.remat=full"]) == [
        "--topology=v5p:4x4x4",
        "--config=configs/fourm.py:mix=mod7,size=xlarge",
        "--config.mesh.data=16",
        "--config.mesh.fsdp=4",
        "--config.model.remat=full",
    ]


def test_gpus_cut_parameters_over_all_of_a_host_and_have_a_batch_each():
    (case,) = topology_table.cases(["xlarge/gpu:8xh100"])
    assert topology_table.settings(case, ["model.remat=full"]) == [
        "--topology=gpu:8xh100",
        "--config=configs/fourm.py:mix=mod21,size=xlarge",
        "--config.mesh.data=1",
        "--config.mesh.fsdp=8",
        "--config.batch_size=512",
        "--config.model.remat=names",
        "--config.model.remat=full",  # the last one counts
    ]


def test_what_waits_for_the_backward_pass_is_compared_on_one_gpu():
    assert topology_table.policies(["base/gpu"]) == [
        ("mod21/base/gpu:1xh200", [f"model.remat={policy}"])
        for policy in ("none", "names", "dots", "full", "offload")
    ]
    assert len(topology_table.policies()) == 10


@pytest.mark.parametrize(
    ("remat", "parts", "gib", "changes"),
    [
        ("names", 1, 36, ["model.remat=full"]),
        ("full", 1, 31, ["model.remat=full", "optimizer.accumulate_steps=2"]),
        ("full", 1, 36, ["model.remat=full", "optimizer.accumulate_steps=4"]),  # 18 would be left
        ("full", 2, 17, ["model.remat=full", "optimizer.accumulate_steps=4"]),
        ("full", 8, 17, None),
        ("full", 1, 200, None),  # an eighth is too much as well
    ],
)
def test_what_does_not_fit_is_tried_with_what_may_be_enough(remat, parts, gib, changes):
    row = {"remat": remat, "accumulate_steps": parts, "bytes": gib * GIB, "memory_bytes": 16 * GIB}
    assert topology_table.next_changes(row) == changes


def test_a_line_shows_the_last_try_and_what_did_not_fit():
    lines = topology_table.markdown([REFUSED, FITS]).splitlines()
    assert lines[2:] == [
        "| mod21 base, 4,096 | v5e:4x4, 4 × 4 | `full`, 2 parts | **11.0** of 16 (`names`: 36.0) | "
        "3.0 | 8.0 | 25.0 | 22.3 | 282 s |"
    ]
    assert "too much of 16 (`names`: 36.0)" in topology_table.markdown([REFUSED])
    assert "| `full`, loop, 2 parts |" in topology_table.markdown([{**FITS, "scan_unroll": 1}])


def test_a_line_of_gpus_has_the_least_time_and_says_what_must_be_set():
    times = {"products": {"ms": 82.4}, "collectives": {"ms": 5.0}, "sum": {"ms": 136.0}}
    row = {
        **FITS,
        "case": "mod21/base/gpu:8xh100",
        "batch_size": 2048,
        "accumulate_steps": 1,
        "scan_unroll": 1,
        "memory_bytes": 75 * GIB,
        "setting": "XLA_PYTHON_CLIENT_MEM_FRACTION=.95",
        "host_bytes": 0,
        "least_ms": times,
    }
    lines = topology_table.gpu_markdown([FITS, row, row]).splitlines()
    assert lines[2:] == [
        "| mod21 base, 256 | 8 × H100 | `full`, loop | **11.0** of 75.0 † | 3.0 | 8.0 | 0.0 | "
        "131 | 82 | 5 | 25.0 |"
    ]
    assert "| 11.0, too much of 75.0 † |" in topology_table.gpu_markdown([{**row, "fits": False}])


def test_rows_are_written_read_and_found(tmp_path):
    path = epath.Path(tmp_path / "rows.jsonl")
    assert topology_table.read(path) == []
    topology_table.write(path, [REFUSED, FITS])
    rows = topology_table.read(path)
    assert rows == [REFUSED, FITS]
    assert topology_table.find(rows, FITS["case"], ["model.remat=full"]) == REFUSED
    assert topology_table.find(rows, FITS["case"], []) is None


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="lacks the lines <!-- table of topologies -->"):
        topology_table.into_page("# Page", [FITS])


def test_the_table_in_the_docs_is_that_of_the_results():
    rows = topology_table.read(epath.Path(ROOT / "experiments/results/topologies.jsonl"))
    page = (ROOT / "docs" / "performance.md").read_text()
    assert rows
    assert topology_table.into_page(page, rows) == page
