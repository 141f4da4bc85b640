"""Programs of a chain compile side by side before they are called, each of them once."""

import dataclasses
import logging
import os
import threading
import time

import jax
import numpy as np

from fourm_jax.generate import ahead, chain, stages
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import GridStage
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from tests.generate import tiny


def start(specs=tiny.SPECS, targets=("edge", "caption")):
    return states.create(tiny.conditions(1, ("rgb",)), targets, specs=specs)


def test_a_chain_compiles_each_program_once_and_none_where_it_is_called(caplog):
    model, params = tiny.trunk(mlp_dim=24)  # a trunk of no other test
    steps = [
        Step(target="edge", scheme="roar", num_tokens=9),
        Step(target="caption", scheme="autoregressive"),
    ]
    run = {"keys": chain.row_keys(0, np.arange(1)), "programs": ahead.Programs()}
    with caplog.at_level(logging.DEBUG, logger="jax"), jax.log_compiles():
        done = chain.run(model, params, start(), steps, **run)
        chain.run(model, params, start(), steps, **run)
    compiled = [
        record.threadName
        for record in caplog.records
        if "Finished XLA compilation of jit(_write" in record.getMessage()
    ]
    assert len(compiled) == 2
    assert threading.main_thread().name not in compiled
    assert bool(done.known["edge"].all())


def test_what_follows_a_text_is_known_ahead_only_if_its_slots_do_not_depend_on_its_length():
    edge = GridStage(target="edge", scheme="maskgit", num_slots=9)
    steps = [Step(target="edge", scheme="maskgit", num_tokens=9)]
    weights, keys = np.zeros((1, 0), np.float32), chain.row_keys(0, np.arange(1))
    grid = ahead.Writing(steps=steps, weights=weights, stage=edge)

    def targets_ahead(length, **lengths):
        text = SequenceStage(target="caption", max_new=length, length=length)
        writing = ahead.Writing(steps=steps, weights=weights, stage=text)
        specs = [
            dataclasses.replace(spec, max_tokens=length) if spec.name == "caption" else spec
            for spec in tiny.SPECS
        ]
        model, params = tiny.trunk()
        model = dataclasses.replace(model, modalities=tuple(specs))
        known = {"rgb": (6, 6), "caption": (1, 1), "edge": (0, 0)}
        how = {"known": known, "lengths": lengths, "fit_slots": True}
        calls = ahead.calls(model, params, start(model.modalities), keys, [writing, grid], **how)
        return [[call.arguments[-1].target for call in ones] for ones in calls]

    assert targets_ahead(64) == [["caption"], ["edge"]]  # 64 slots or none
    assert targets_ahead(200) == [["caption"]]  # 67, 134 or 200
    assert targets_ahead(200, caption=100) == [["caption"], ["edge"]]


def test_a_chain_that_ends_early_gives_up_what_has_not_begun_to_compile(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one compiles, the other waits

    class Jitted:
        def __init__(self, compile_it):
            self.compile = compile_it

        def lower(self, *_):
            return self

    def ends_early():
        while second.key not in programs._begun:
            time.sleep(0.001)
        programs.give_up(keys)

    compiled, programs = [], ahead.Programs()
    first = stages.Call(Jitted(ends_early), ("model", {}, {}, "stage"))
    second = stages.Call(Jitted(lambda: compiled.append("second")), first.arguments)
    keys = programs.expect([first, second])
    programs.wait(first)
    programs.wait(second)
    assert compiled == []
    assert programs.expect([first, second]) == [second.key]
