"""Diffusion arithmetic: worked examples, identities, and the published schedulers' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import schedulers as verify
from fourm_jax.ops.diffusion import dpm, pndm, process, samplers, schedules
from tests import golden_cases


def draw(seed, shape=(2, 4, 4, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


# --- schedules ------------------------------------------------------------------------------


def test_a_zero_snr_schedule_ends_without_signal_and_keeps_its_start():
    for name in (*schedules.BETAS, "shifted_cosine:0.5"):
        plain = schedules.alphas_cumprod(name, zero_terminal_snr=False)
        zero = schedules.alphas_cumprod(name)
        assert zero[-1] == 0 < plain[-1]
        assert zero[0] == pytest.approx(plain[0], abs=1e-6)
        assert (np.diff(zero) <= 0).all()


def test_linear_betas_multiply_up():
    betas = schedules.betas("linear", 3, 0.1, 0.3)
    np.testing.assert_allclose(betas, [0.1, 0.2, 0.3])
    alphas = schedules.alphas_cumprod("linear", 3, zero_terminal_snr=False, start=0.1, end=0.3)
    np.testing.assert_allclose(alphas, [0.9, 0.72, 0.504], rtol=1e-6)


def test_the_shift_moves_the_log_snr_of_the_cosine_schedule_by_twice_its_logarithm():
    def log_snr(shift):
        alphas = schedules.alphas_cumprod(f"shifted_cosine:{shift}")[300:700]
        return np.log(alphas / (1 - alphas))

    np.testing.assert_allclose(log_snr(0.5), log_snr(1) + 2 * np.log(2), atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "shifted_cosine", "shifted_cosine:0"])
def test_an_unknown_schedule_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        schedules.alphas_cumprod(name)


def test_times_start_or_end_where_their_spacing_says():
    assert schedules.timesteps(4, "trailing").tolist() == [999, 749, 499, 249]
    assert schedules.timesteps(4, "leading").tolist() == [750, 500, 250, 0]
    assert schedules.timesteps(4, "linspace").tolist() == [999, 666, 333, 0]


@pytest.mark.parametrize("num_steps", [1, 3, 7, 30, 333, 1000])
def test_any_number_of_trailing_steps_is_as_many_as_asked_and_starts_at_the_end(num_steps):
    times = schedules.timesteps(num_steps)
    assert len(times) == num_steps
    assert times[0] == 999
    assert (np.diff(times) < 0).all()
    assert schedules.next_times(times, num_steps).tolist() == [*times[1:], -1]


def test_the_published_strides_give_31_trailing_steps_for_30():
    assert len(schedules.timesteps(30, "trailing", as_published=True)) == 31


def test_only_the_published_ddpm_misses_the_step_of_pure_noise():
    alphas = schedules.alphas_cumprod("linear")
    ours = samplers.plan("ddpm", alphas, 50)
    published = samplers.plan("ddpm", alphas, 50, as_published=True)
    assert (ours.timestep[0], ours.alpha[0], ours.alpha_next[-1]) == (999, 0, 1)
    assert published.timestep[0] == 980


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "0 sampling steps, allowed: 1..1000"),
        ((1001,), "1001 sampling steps"),
        ((4, "late"), "spacing 'late', allowed"),
    ],
)
def test_impossible_times_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.timesteps(*arguments)


def test_an_unknown_sampler_or_too_few_pndm_steps_are_refused():
    alphas = schedules.alphas_cumprod("linear")
    with pytest.raises(ValueError, match="sampler 'euler', allowed"):
        samplers.plan("euler", alphas, 4)
    with pytest.raises(ValueError, match=r"3 PNDM steps, allowed: 4\.\.1000"):
        samplers.plan("pndm", alphas, 3)


def test_pndm_takes_the_first_step_twice_and_then_extrapolates():
    """4 steps of 8 times: 7, 5, 3, 1, each to the next one; the last one goes to time 0."""
    alphas = np.linspace(0.9, 0.2, 8).astype(np.float32)
    plan = pndm.plan(alphas, 4)
    np.testing.assert_array_equal(plan.timestep, [7, 5, 5, 3, 1])
    np.testing.assert_array_equal(plan.alpha, alphas[[7, 7, 5, 3, 1]])
    np.testing.assert_array_equal(plan.alpha_next, alphas[[5, 5, 3, 1, 0]])
    np.testing.assert_allclose(plan.newest, [1, 0.5, 3 / 2, 23 / 12, 55 / 24])
    np.testing.assert_allclose(plan.earlier[2:, 0], [-1 / 2, -16 / 12, -59 / 24])
    assert plan.first.tolist() == [True, False, False, False, False]
    assert plan.restart.tolist() == [False, True, False, False, False]
    assert plan.remember.tolist() == [True, False, True, True, True]


def test_dpm_extrapolates_by_half_between_even_steps_of_the_log_snr():
    """Log-SNR -2, -1, 0, 1, then the clean image: only the steps between know where they go."""
    alphas = (1 / (1 + np.exp(-np.arange(-2, 2)))).astype(np.float32)
    plan = dpm.plan(np.arange(4)[::-1], alphas, np.append(alphas[1:], np.float32(1)))
    np.testing.assert_allclose(plan.extrapolation, [0, 0.5, 0.5, 0], rtol=1e-5)


def test_dpm_is_exact_where_the_clean_image_is_linear_in_the_log_snr():
    """Estimates 1, then 3; the middle of the next step is at 4, which is what it aims at."""
    row = dpm.Plan(
        timestep=np.asarray(0),
        alpha=np.asarray(0.5, np.float32),
        alpha_next=np.asarray(0.75, np.float32),
        extrapolation=np.asarray(0.5, np.float32),
    )
    state = dpm.State(noised=jnp.full((1, 1), 2.0), clean=jnp.full((1, 1), 1.0))
    reached = dpm.step(state, row, jnp.full((1, 1), 3.0), prediction="sample")
    noise = (2 - 0.5**0.5 * 4) / 0.5**0.5
    np.testing.assert_allclose(reached.noised, 0.75**0.5 * 4 + 0.5 * noise, rtol=1e-5)
    np.testing.assert_allclose(reached.clean, 3.0)


# --- arithmetic -----------------------------------------------------------------------------


def test_noise_of_a_quarter_signal_by_hand():
    clean, noise, alpha = jnp.full((1, 1), 2.0), jnp.full((1, 1), 4.0), jnp.array([0.25])
    np.testing.assert_allclose(process.add_noise(clean, noise, alpha), 1 + 12**0.5, rtol=1e-5)
    np.testing.assert_allclose(process.velocity(clean, noise, alpha), 2 - 3**0.5, rtol=1e-5)


@pytest.mark.parametrize("prediction", process.PREDICTIONS)
def test_every_prediction_gives_image_and_noise_back(prediction):
    clean, noise, alpha = draw(0), draw(1), jnp.array([0.9, 0.1])
    noised = process.add_noise(clean, noise, alpha)
    answer = process.target(clean, noise, alpha, prediction)
    for found, expected in zip(
        process.clean_and_noise(noised, answer, alpha, prediction), (clean, noise), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction 'x0', allowed"):
        process.clean_and_noise(draw(0), draw(1), jnp.array(0.5), "x0")


@pytest.mark.parametrize("sampler", samplers.NAMES)
@pytest.mark.parametrize("prediction", ["sample", "v"])
def test_a_perfect_network_leads_every_sampler_to_the_image(sampler, prediction):
    clean, noised = jnp.tanh(draw(0)), draw(1)
    alphas = schedules.alphas_cumprod("shifted_cosine:0.5")
    plan = samplers.plan(sampler, alphas, 6)
    state = samplers.start(sampler, noised)
    for i in range(len(plan.timestep)):
        row = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), plan)
        alpha = jnp.asarray(alphas)[row.timestep]
        noise = (state.noised - jnp.sqrt(alpha) * clean) / jnp.sqrt(1 - alpha)
        answer = process.target(clean, noise, alpha, prediction)
        state = samplers.step(
            sampler, state, row, answer, lambda i=i: draw(i + 2), prediction=prediction
        )
    # PNDM ends at time 0 rather than at the image, and extrapolates
    np.testing.assert_allclose(state.noised, clean, atol=0.05 if sampler == "pndm" else 1e-4)


def test_clipping_keeps_image_and_noise_consistent_unless_as_published():
    noised, answer, alpha = draw(0), 3 * draw(1), jnp.float32(0.5)
    step = {"prediction": "sample", "clip": (-1.0, 1.0)}
    reached, clean = process.ddim_step(noised, answer, alpha, jnp.float32(0.5), **step)
    np.testing.assert_allclose(reached, noised, atol=1e-5)  # going nowhere changes nothing
    assert jnp.abs(clean).max() == 1
    published, _ = process.ddim_step(
        noised, answer, alpha, jnp.float32(0.5), **step, as_published=True
    )
    assert jnp.abs(published - noised).max() > 0.1


def test_ranges_may_differ_between_channels():
    low, high = jnp.array([-1.0, -2.0, -3.0]), jnp.array([1.0, 2.0, 3.0])
    _, clean = process.ddim_step(
        draw(0),
        100 * draw(1),
        jnp.float32(0.5),
        jnp.float32(1),
        prediction="sample",
        clip=(low, high),
    )
    np.testing.assert_allclose(jnp.abs(clean).max(axis=(0, 1, 2)), high)


def test_all_of_the_variance_drawn_anew_is_ddpm():
    arguments = (draw(0), draw(1), jnp.float32(0.3), jnp.float32(0.6))
    ddim, _ = process.ddim_step(*arguments, prediction="v", eta=1.0, noise=draw(2))
    ddpm, _ = process.ddpm_step(*arguments, draw(2), prediction="v")
    np.testing.assert_allclose(ddim, ddpm, atol=1e-5)


def test_noise_of_a_row_does_not_depend_on_the_batch():
    few, many = (process.sample_noise(jax.random.key(0), (n, 3, 2)) for n in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    assert not np.array_equal(many[0], many[1])


def test_conditions_are_dropped_at_their_rate_and_in_their_number():
    shape, key = (4000, 2, 3), jax.random.key(0)
    whole = process.keep_condition(key, shape, 0.25)
    counts = np.asarray(whole.sum(axis=(1, 2)))
    assert set(counts) == {0, 6}
    assert abs((counts == 0).mean() - 0.25) < 0.03
    some = process.keep_condition(key, shape, 1.0, (1, 2))
    counts = np.asarray(some.sum(axis=(1, 2)))
    assert set(counts) == {4, 5}
    assert abs((counts == 4).mean() - 0.5) < 0.03
    np.testing.assert_allclose(some.mean(axis=0), 0.75, atol=0.03)  # every position alike


def test_guidance_scales_the_difference():
    np.testing.assert_allclose(process.guide(jnp.array([3.0]), jnp.array([1.0]), 2.0), 5.0)


# --- the published schedulers ---------------------------------------------------------------


@golden_cases.either_set
def test_schedules_times_and_steps_equal_the_published_ones(where):
    for _, quantities in verify.cases(where("schedulers")):
        golden_cases.assert_all_pass(quantities)
