"""How many tokens each modality gets: Dirichlet shares of a total, capped, the rest shared out."""

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float, Int

NUM_ROUNDS = 3  # of sharing out what full modalities cannot use
SMALLEST_ALPHA = 1e-9  # what the published code clamps concentrations to


def log_gammas(
    alphas: Float[Array, "*m"],
    normal: Float[Array, "t *m"],
    accept: Float[Array, "t *m"],
    boost: Float[Array, "*m"],
) -> Float[Array, "*m"]:
    """Log of Gamma(alpha, 1) draws; their softmax over *any* subset is that subset's Dirichlet.

    So one draw serves every round that shares out what full modalities cannot use. Marsaglia and
    Tsang (2000) for shape alpha + 1, times U^(1/alpha). Each of the t tries is accepted with
    probability > 0.95, and all are computed at once: no loop, where `jax.random.loggamma` needs a
    nest of them per element. If none is accepted (t = 6: probability < 2e-8) the last one stays.

    Args:
      normal: standard normal draws.
      accept, boost: uniform draws in (0, 1).
    """
    alphas = jnp.maximum(alphas, SMALLEST_ALPHA)
    d = alphas + 2 / 3
    v = (1 + normal / jnp.sqrt(9 * d)) ** 3
    log_v = jnp.log(jnp.maximum(v, 1e-30))
    accepted = (v > 0) & (jnp.log(accept) < normal**2 / 2 + d * (1 - v + log_v))
    first = jnp.where(accepted.any(0), jnp.argmax(accepted, axis=0), len(normal) - 1)
    log_v = jnp.take_along_axis(log_v, first[None], axis=0)[0]
    return jnp.log(d) + log_v + jnp.log(boost) / alphas


def shares(gammas: Float[Array, "m"], among: Bool[Array, "m"]) -> Float[Array, "m"]:
    """Dirichlet shares among a subset, from log gammas: sum 1 (or 0 if it is empty), 0 outside."""
    top = jnp.max(jnp.where(among, gammas, -jnp.inf))
    weights = jnp.where(among, jnp.exp(gammas - jnp.where(jnp.isfinite(top), top, 0.0)), 0.0)
    return weights / jnp.maximum(weights.sum(), 1.0)  # the largest weight is 1


def split(
    share: Float[Array, "m"], total: Int[Array, ""], extra_choices: Int[Array, "e"]
) -> Int[Array, "m"]:
    """Split `total` into whole tokens: floor of each share, the rest one by one.

    Source: docs/published.md#masking, step 3.

        share [0.5, 0.3, 0.2], total 9 -> [4, 2, 1] and two more to the first two extra_choices

    Args:
      extra_choices: the modality that gets each token of the rest, in turn; e >= m - 1 suffices.
    """
    # As torch's Dirichlet, which never returns more: with one modality, one token is still drawn.
    share = jnp.minimum(share, 1 - 2**-24)
    budget = jnp.floor(share * total).astype(jnp.int32)
    rest = total - budget.sum()
    taken = jnp.arange(len(extra_choices)) < rest
    return budget + jnp.sum(
        (extra_choices[:, None] == jnp.arange(len(share))) & taken[:, None], axis=0
    )


def redistribute(
    budget: Int[Array, "m"],
    capacity: Int[Array, "m"],
    total: Int[Array, ""],
    gammas: Float[Array, "m"],
) -> Int[Array, "m"]:
    """Cap budgets by capacity and give what is left of `total` to modalities with room.

    Each round splits it by Dirichlet shares among those with room; a last pass fills them up one
    after the other, largest share first, so nothing is left over unless nobody has room.
    """
    budget = jnp.minimum(budget, capacity)
    for _ in range(NUM_ROUNDS):
        rest = jnp.maximum(total - budget.sum(), 0)
        share = shares(gammas, budget < capacity)
        budget = jnp.minimum(budget + jnp.floor(share * rest).astype(jnp.int32), capacity)
    room = capacity - budget
    index = jnp.arange(len(budget))
    ahead = (gammas[None, :] > gammas[:, None]) | (
        (gammas[None, :] == gammas[:, None]) & (index[None, :] < index[:, None])
    )
    room_ahead = jnp.sum(jnp.where(ahead, room[None, :], 0), axis=1)
    return budget + jnp.clip(total - budget.sum() - room_ahead, 0, room)


def argmax_probabilities(alphas: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """Probability that each component is the largest of a Dirichlet draw (host, float64).

    The published code hands out each token of the rest to the argmax of a fresh Dirichlet draw;
    with these probabilities one categorical draw does the same. They are the integrals
    ∫ f_i(x) ∏_{j≠i} F_j(x) dx over Gamma densities f and distribution functions F, in y = log x,
    where a small alpha's density reaches down to y ≈ -10 / alpha.
    """
    alphas = np.asarray(alphas, np.float64)
    active = alphas > SMALLEST_ALPHA
    if not active.any():
        return np.full(len(alphas), 1 / len(alphas))
    a = alphas[active][:, None]
    low = -40 / a.sum() - 40
    fine = np.linspace(-40, np.log(a.max() + 40), 40_001)
    y = np.concatenate([np.linspace(low, -40, 4_001)[:-1], fine])
    tail = y < -20  # below, F(x) = x^a / Γ(a + 1) to double precision, and gammainc underflows
    log_cdf = a * y - scipy.special.gammaln(a + 1)
    log_cdf[:, ~tail] = np.log(np.maximum(scipy.special.gammainc(a, np.exp(y[~tail])), 1e-300))
    log_pdf = a * y - np.exp(y) - scipy.special.gammaln(a)
    wins = np.trapezoid(np.exp(log_pdf + log_cdf.sum(0) - log_cdf), y, axis=1)
    probabilities = np.zeros(len(alphas))
    probabilities[active] = wins / wins.sum()
    return probabilities
