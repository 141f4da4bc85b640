"""What a run does before its first step."""

import collections

import jax
import numpy as np

from fourm_jax.masking import plans
from fourm_jax.models import fourm
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.tokenizers import divae
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


def test_a_run_that_trains_a_decoder_alone_leaves_encoder_and_codebook_bit_equal():
    config = tiny.tokenizer()
    with config.unlocked():
        config.tokenizer.family = "divae"
        config.tokenizer.arguments = {
            **divae.tiny()["rgb_unet"],
            "image_size": 32,
            "patch_size": 8,
            "freeze_encoder": True,
        }
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    run = run_config.build(config)
    batch = next(run.batches(0, ahead=False))
    made = program.make(config, run.task, mesh, batch)
    before = made.init(batch, made.root)
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(_makes_ids(before))]
    after, _ = made.train_step(before, batch, made.root)
    # By default matrices decay: without a gradient too.
    for one, other in zip(found, jax.tree.leaves(_makes_ids(after)), strict=True):
        np.testing.assert_array_equal(one, other)


def _makes_ids(state):
    parts = {name: state.params[name] for name in ("encoder", "to_latent")}
    return {**parts, **state.model_state}
