"""Collectives are read from HLO text: kinds, group sizes, loops, bytes on the wire."""

import pytest

from fourm_jax.parallel import collectives, hlo

HLO = """HloModule step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %all-gather.1 = bf16[8,4]{1,0:T(8,128)} all-gather(%x), channel_id=1, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, \
frontend_attributes={chain_id="5"}, metadata={op_name="w"}
  %all-gather.2 = bf16[8,4]{1,0} all-gather(%y), channel_id=1, \
replica_groups={{0,1,2,3},{4,5,6,7}}, frontend_attributes={chain_id="5"}
}

%condition (p: (s32[], bf16[8,4])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(24)
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

%all-reduce-scatter.clone (p: f32[16]) -> f32[2] {
  %all-reduce.3 = f32[16]{0} all-reduce(%p), channel_id=3, replica_groups=[1,8]<=[8], to_apply=%add
}

ENTRY %main (a: f32[16]) -> f32[2] {
  %while.1 = (s32[], bf16[8,4]{1,0}) while(%t), condition=%condition, body=%body
  %all-reduce.2 = (f32[16]{0}, f32[4]{0}) all-reduce(%a, %b), channel_id=2, replica_groups={}, \
to_apply=%add, metadata={op_name="grads"}
  %permute = (f32[16]{0}, f32[16]{0}, u32[], u32[]) collective-permute-start(%a), channel_id=4
  ROOT %f = f32[2]{0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.clone
}
"""


def test_kinds_counts_and_bytes_of_a_program_on_eight_devices():
    found = {one.kind: one for one in collectives.read(hlo.parse(HLO), num_devices=8)}
    gather = found["all-gather"]  # 24 rounds of 64 bytes, three quarters of which are sent
    assert (gather.count, gather.num_devices, gather.source) == (24, 4, "w")
    assert gather.wire_bytes == 24 * 64 * 3 / 4
    reduce = found["all-reduce"]  # 80 bytes there and back, seven eighths of them
    assert (reduce.count, reduce.wire_bytes, reduce.source) == (1, 2 * 80 * 7 / 8, "grads")
    assert reduce.arrays == ("f32[16]", "f32[4]")
    assert found["reduce-scatter"].wire_bytes == 64 * 7 / 8
    assert found["collective-permute"].wire_bytes == 64


def test_collectives_of_one_channel_count_each_unless_they_are_pieces_of_one():
    apart = HLO.replace('chain_id="5"}\n', 'chain_id="6"}\n')
    assert collectives.summary(collectives.read(hlo.parse(apart), 8))["all-gather"]["count"] == 48
    apart = HLO.replace('frontend_attributes={chain_id="5"}', "dimensions={0}")
    assert collectives.summary(collectives.read(hlo.parse(apart), 8))["all-gather"]["count"] == 48


GPU_HLO = """HloModule step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main (a: bf16[16]) -> bf16[2] {
  %all-gather-start.1 = ((bf16[2]{0}, f32[4]{0}), (bf16[16]{0}, f32[32]{0})) \
all-gather-start(%a, %b), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  %all-gather-done.1 = (bf16[16]{0}, f32[32]{0}) all-gather-done(%all-gather-start.1)
  %reduce-scatter-start = ((bf16[16]{0}), bf16[2]{0}) reduce-scatter-start(%a), channel_id=2, \
replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  %all-reduce-start = f32[4]{0} all-reduce-start(%c), channel_id=3, replica_groups=[4,2]<=[8], \
to_apply=%add
  ROOT %reduce-scatter-done = bf16[2]{0} reduce-scatter-done(%reduce-scatter-start)
}
"""


def test_what_goes_into_a_collective_that_is_started_does_not_count():
    found = {one.kind: one for one in collectives.read(hlo.parse(GPU_HLO), num_devices=8)}
    assert found["all-gather"].arrays == ("bf16[16]", "f32[32]")
    assert found["all-gather"].wire_bytes == (2 * 16 + 4 * 32) * 7 / 8
    assert found["reduce-scatter"].wire_bytes == 7 * 4  # what comes out, sent seven times
    assert found["all-reduce"].wire_bytes == 16  # of two devices: half, there and back


def test_a_summary_adds_up_by_kind():
    found = collectives.read(hlo.parse(HLO), num_devices=8)
    assert collectives.summary(found)["all-gather"] == {"count": 24, "wire_bytes": 1152.0}


@pytest.mark.parametrize(
    ("condition", "count"),
    [("direction=GT", 1), ("direction=LT", 24)],
)
def test_a_loop_of_unknown_length_counts_once(condition, count):
    text = HLO.replace("direction=LT", condition)
    assert collectives.read(hlo.parse(text), num_devices=8)[0].count in (1, count)
    counts = {one.kind: one.count for one in collectives.read(hlo.parse(text), num_devices=8)}
    assert counts["all-gather"] == count
