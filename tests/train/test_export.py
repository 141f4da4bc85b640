"""A trained tokenizer on disk is what the run says is best, with a card."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.data import in_memory
from fourm_jax.data.sources import fake
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


def pictures(monkeypatch, values):
    """Config of a tokenizer whose held-out records are these."""
    records = [{"rgb": value} for value in values]
    monkeypatch.setattr(fake, "make_source", lambda split, names: in_memory.Rows(records))
    return tiny.tokenizer()


def test_held_out_records_of_another_shape_are_left_out(monkeypatch, capsys):
    large, small = np.zeros((32, 32, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)
    config = pictures(monkeypatch, [small, large, large])
    assert export.read_held_out(config).shape == (2, 32, 32, 3)
    assert "1 of 3 held-out records left out" in capsys.readouterr().out


def test_a_tokenizer_without_held_out_records_is_refused_before_it_is_trained(monkeypatch):
    config = pictures(monkeypatch, [])
    with pytest.raises(
        ValueError, match=r"held-out records \('test'\) .* 'rgb': .* 'fake' has none"
    ):
        export.open_held_out(config)
