"""Enlarged scenes are judged by pixels and edges; the model behind them needs a finished run."""

import numpy as np
import pytest

from fourm_jax.jobs import upscaling
from fourm_jax.scenes import world


def test_a_true_picture_has_all_its_edges_and_a_grey_one_none():
    true = np.zeros((1, 16, 16, 3), np.uint8)
    true[:, 4:12, 4:12] = 200
    best, worst = upscaling.judge(true, true), upscaling.judge(np.full_like(true, 50), true)
    assert best["edge F1"] == 1.0
    assert best["PSNR"] > 70
    assert worst["edge F1"] == 0.0
    assert worst["PSNR"] == pytest.approx(10 * np.log10(255**2 / (0.75 * 50**2 + 0.25 * 150**2)))


def test_pictures_of_other_scenes_are_not_compared(monkeypatch):
    class Scenes:
        def __init__(self, split, count, side):
            self.shape = (count, side, side, 3)

        def records(self, numbers):
            return {"rgb": np.ones(self.shape, np.uint8)}

    monkeypatch.setattr(world, "SceneSource", Scenes)
    assert upscaling.true_pictures(np.ones((2, 4, 4, 3), np.uint8)).shape == (2, 8, 8, 3)
    with pytest.raises(ValueError, match="no scenes of seed 0"):
        upscaling.true_pictures(np.zeros((2, 4, 4, 3), np.uint8))


def test_a_gain_over_other_pictures_has_the_interval_of_its_scenes():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    grey = np.full_like(true, 128)
    gains = upscaling.gains(true, grey, true)
    assert 60 < gains["PSNR"][0] <= gains["PSNR"][1] < 100
    assert gains["edge F1"] == (1.0, 1.0)
    assert upscaling.gains(grey, grey, true) == {"PSNR": (0.0, 0.0), "edge F1": (0.0, 0.0)}
