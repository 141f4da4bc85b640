"""The table of transfers: means over seeds, kept after every training, drawn over the labels."""

import types

import ml_collections
import pytest

from fourm_jax.jobs import transfer_eval, transfer_table
from fourm_jax.train import loop
from fourm_jax.utils import folder_lock, io

ACCURACIES = {(64, 0): 0.25, (256, 0): 0.5, (64, 1): 0.5, (256, 1): 1.0}


def case(labels, seed):
    config = ml_collections.ConfigDict({"seed": seed, "labels": labels})
    return transfer_table.Case(
        task="cls", variant="full", num_labels=labels, seed=seed, config=config
    )


@pytest.fixture
def trained(monkeypatch):
    """Cases that were trained; each is measured as `ACCURACIES` says."""
    done = []

    def train(config, workdir, **_):
        if config.seed == 2:
            raise KeyboardInterrupt
        done.append(workdir.name)
        metrics = {"loss": 1.0, "eval/accuracy": ACCURACIES[config.labels, config.seed]}
        return types.SimpleNamespace(metrics=metrics)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(transfer_eval, "make_evaluator", lambda config: None)
    return done


def row(labels, seeds, accuracy, spread):
    key = {"task": "cls", "variant": "full", "labels": labels, "seeds": seeds}
    return {**key, "accuracy": accuracy, "accuracy±": spread}


def test_a_second_process_does_not_write_the_same_table(trained, tmp_path):
    with folder_lock.hold(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        transfer_table.run([case(64, 0)], tmp_path)
    assert not trained


def test_a_table_of_one_seed_is_kept_before_the_next_seed_is_tried(trained, tmp_path):
    cases = [case(labels, seed) for seed in (0, 1) for labels in (64, 256)]
    with pytest.raises(KeyboardInterrupt):
        transfer_table.run([*cases[:3], case(256, 2)], tmp_path)
    half = io.read_json(tmp_path / "table.json")["rows"]
    assert half == [row(64, 2, 0.375, 0.125), row(256, 1, 0.5, 0.0)]
    with pytest.raises(KeyboardInterrupt):  # a continued one loses no seed that it knows
        transfer_table.run([cases[0], case(256, 2)], tmp_path)
    assert io.read_json(tmp_path / "table.json")["rows"] == half
    rows = transfer_table.run(cases, tmp_path)
    assert rows == [row(64, 2, 0.375, 0.125), row(256, 2, 0.75, 0.25)]
    assert trained[-2:] == ["cls-full-64-1", "cls-full-256-1"]
    assert (tmp_path / "curves.png").stat().st_size > 1_000
