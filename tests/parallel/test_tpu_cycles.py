"""Cycles are counted as often as they run, as the compiler of a TPU says them."""

import re

import pytest

from fourm_jax.parallel import hlo, tpu_cycles

SHORT = """HloModule step

%products (p: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} parameter(0)
}

%layer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %a = f32[8]{0} fusion(%x), kind=kOutput, calls=%products, takes 3000000 of f/attend/dot_general
  %b = f32[8]{0} fusion(%a), kind=kLoop, calls=%products, takes 500000 of f/mlp_norm/div
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %b)
}

%going (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] constant(4)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%until (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  ROOT %never = pred[] constant(false)
}

%short (p: f32[8]) -> f32[8] {
  ROOT %c = f32[8]{0} copy(%p), takes 10000 of f/x
}

%long (p: f32[8]) -> f32[8] {
  ROOT %d = f32[8]{0} fusion(%p), kind=kOutput, calls=%products, takes 2000000 of f/fc1/dot_general
}

ENTRY %main (x: f32[8], i: s32[]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %i = s32[] parameter(1)
  %t = (s32[], f32[8]{0}) tuple(%i, %x)
  %w = (s32[], f32[8]{0}) while(%t), condition=%going, body=%layer
  %v = (s32[], f32[8]{0}) while(%w), condition=%until, body=%layer
  %y = f32[8]{0} get-tuple-element(%v), index=1
  %z = f32[8]{0} conditional(%i, %y, %y), branch_computations={%short, %long}
  ROOT %k = f32[8]{0} custom-call(%z), custom_call_target="tpu_custom_call"
}
"""
SAID = r'metadata={op_name="\2"}, backend_config={"window_config":{"estimated_cycles":"\1"}}'
PROGRAM = re.sub(r"takes (\d+) of (\S+)", SAID, SHORT)


@pytest.mark.parametrize("open_rounds", [1, 10])
def test_loops_count_as_often_as_they_run_and_of_branches_the_longest(open_rounds):
    rounds = 4 + open_rounds
    assert tpu_cycles.report(hlo.parse(PROGRAM), open_rounds) == {
        "attention": {"runs": rounds, "mcycles": 3.0 * rounds},
        "products": {"runs": 1, "mcycles": 2.0},
        "norms": {"runs": rounds, "mcycles": 0.5 * rounds},
        tpu_cycles.KERNELS: {"runs": 1, "mcycles": 0.0},
        "sum": {"runs": 2 * rounds + 2, "mcycles": 3.5 * rounds + 2},
    }


def test_reports_of_several_programs_are_added_up():
    total = {}
    tpu_cycles.add(total, {"norms": {"runs": 2, "mcycles": 0.5}}, calls=3)
    tpu_cycles.add(total, {"norms": {"runs": 1, "mcycles": 0.25}}, calls=1)
    assert total == {"norms": {"runs": 7, "mcycles": 1.75}}


def test_a_program_without_figures_takes_none():
    empty = hlo.parse(
        "ENTRY %main (x: f32[8]) -> f32[8] {\n  ROOT %x = f32[8]{0} parameter(0)\n}\n"
    )
    assert tpu_cycles.report(empty) == {"sum": {"runs": 0, "mcycles": 0.0}}
