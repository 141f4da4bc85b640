"""What a run does before its first step."""

import collections

import jax

from fourm_jax.masking import plans
from fourm_jax.models import fourm
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import program, run_config
from tests.train import tiny


def test_a_start_looks_at_the_masks_once_and_at_the_trunk_twice(monkeypatch):
    seen = collections.Counter()

    def counted(holder, name):
        function = getattr(holder, name)

        def call(*arguments, **named):
            seen[name] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(holder, name, call)

    counted(plans, "make_plan")
    counted(fourm.FourM, "encode")
    config, mesh = tiny.trunk(), mesh_lib.make_mesh(devices=jax.devices()[:1])
    with config.unlocked():
        config.masking.num_inputs = 13  # no other test has traced it
    batch = run_config.abstract_batch(config, mesh)
    made = program.make(config, run_config.make_task(config), mesh, batch)
    made.init.trace(batch, made.root)
    # The trunk for its parameters, and for the names of its metrics.
    assert seen == {"make_plan": 1, "encode": 2}
