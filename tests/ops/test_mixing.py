"""Mixup and cutmix: pictures and labels are mixed in the same shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.ops import mixing

WHITE_AND_BLACK = jnp.stack([jnp.ones((8, 8, 1)), jnp.zeros((8, 8, 1))])


@pytest.mark.parametrize("how", [{"mixup": 1.0, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
@pytest.mark.parametrize("seed", range(4))
def test_the_share_of_a_label_is_that_of_its_picture(how, seed):
    pictures, targets = mixing.mix(
        jax.random.key(seed), {"rgb": WHITE_AND_BLACK}, jnp.eye(2), **how
    )
    np.testing.assert_allclose(pictures["rgb"].mean((1, 2, 3)), targets[:, 0], atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_cutmix_pastes_and_blends_nothing():
    pictures, _ = mixing.mix(
        jax.random.key(3), {"rgb": WHITE_AND_BLACK}, jnp.eye(2), mixup=0.0, cutmix=1.0
    )
    assert set(np.unique(pictures["rgb"])) <= {0.0, 1.0}
