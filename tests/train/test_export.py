"""A trained tokenizer on disk is what the run says is best, with a card."""

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.train import export, run_config
from fourm_jax.train.state import TrainState
from tests.train import tiny


def test_the_running_average_of_the_parameters_is_what_is_saved(tmp_path):
    config = tiny.tokenizer()
    run = run_config.build(config)
    batch = next(run.batches(0))
    params, model_state = run.task.init(jax.random.key(0), batch)
    average = jax.tree.map(lambda leaf: leaf + 0.5, params)
    state = TrainState(
        step=jnp.int32(7),
        params=params,
        model_state=model_state,
        opt_state=None,
        ema_params=average,
        metrics={},
    )
    raw = np.asarray(batch[run.task.source_field])
    loaded = export.save_tokenizer(config, state, tmp_path / "rgb", held_out=raw)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], average)
    assert loaded.card.training_steps == 7
    assert loaded.card.reconstruction["psnr"] > 0
