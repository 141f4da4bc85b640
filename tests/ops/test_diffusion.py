"""Diffusion arithmetic: worked examples, identities, and the published schedulers' numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from fourm_jax.ops import diffusion, diffusion_sampling, diffusion_schedules, pndm
from tests import golden_cases

TOLERANCE = {"atol": 2e-4, "rtol": 1e-4}
PREDICTION = {"sample": "sample", "epsilon": "epsilon", "v_prediction": "v"}


@pytest.fixture(params=["shipped", "full"])
def goldens(request):
    """Numbers and their description; the full set where it is there."""
    folder = getattr(golden_cases, {"shipped": "shipped", "full": "directory"}[request.param])
    folder = folder("schedulers")
    tensors = load_file(folder / "schedulers.safetensors")
    return tensors, json.loads((folder / "meta.json").read_text())


def draw(seed, shape=(2, 4, 4, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


# --- schedules ------------------------------------------------------------------------------


def test_a_zero_snr_schedule_ends_without_signal_and_keeps_its_start():
    for name in (*diffusion_schedules.BETAS, "shifted_cosine:0.5"):
        plain = diffusion_schedules.alphas_cumprod(name, zero_terminal_snr=False)
        zero = diffusion_schedules.alphas_cumprod(name)
        assert zero[-1] == 0 < plain[-1]
        assert zero[0] == pytest.approx(plain[0], abs=1e-6)
        assert (np.diff(zero) <= 0).all()


def test_linear_betas_multiply_up():
    betas = diffusion_schedules.betas("linear", 3, 0.1, 0.3)
    np.testing.assert_allclose(betas, [0.1, 0.2, 0.3])
    alphas = diffusion_schedules.alphas_cumprod(
        "linear", 3, zero_terminal_snr=False, start=0.1, end=0.3
    )
    np.testing.assert_allclose(alphas, [0.9, 0.72, 0.504], rtol=1e-6)
    np.testing.assert_allclose(diffusion_schedules.betas_of(alphas), betas, rtol=1e-5)


def test_the_shift_moves_the_log_snr_of_the_cosine_schedule_by_twice_its_logarithm():
    def log_snr(shift):
        alphas = diffusion_schedules.alphas_cumprod(f"shifted_cosine:{shift}")[300:700]
        return np.log(alphas / (1 - alphas))

    np.testing.assert_allclose(log_snr(0.5), log_snr(1) + 2 * np.log(2), atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "shifted_cosine", "shifted_cosine:0"])
def test_an_unknown_schedule_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        diffusion_schedules.alphas_cumprod(name)


def test_times_start_or_end_where_their_spacing_says():
    assert diffusion_schedules.timesteps(4, "trailing").tolist() == [999, 749, 499, 249]
    assert diffusion_schedules.timesteps(4, "leading").tolist() == [750, 500, 250, 0]
    assert diffusion_schedules.timesteps(4, "linspace").tolist() == [999, 666, 333, 0]


@pytest.mark.parametrize("num_steps", [1, 3, 7, 30, 333, 1000])
def test_any_number_of_trailing_steps_is_as_many_as_asked_and_starts_at_the_end(num_steps):
    times = diffusion_schedules.timesteps(num_steps)
    assert len(times) == num_steps
    assert times[0] == 999
    assert (np.diff(times) < 0).all()
    assert diffusion_schedules.next_times(times, num_steps).tolist() == [*times[1:], -1]


def test_the_published_strides_give_31_trailing_steps_for_30():
    assert len(diffusion_schedules.timesteps(30, "trailing", compat="ml-4m")) == 31


def test_only_the_published_ddpm_misses_the_step_of_pure_noise():
    alphas = diffusion_schedules.alphas_cumprod("linear")
    ours = diffusion_sampling.plan("ddpm", alphas, 50)
    published = diffusion_sampling.plan("ddpm", alphas, 50, compat="ml-4m")
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
        diffusion_schedules.timesteps(*arguments)


def test_an_unknown_sampler_or_too_few_pndm_steps_are_refused():
    alphas = diffusion_schedules.alphas_cumprod("linear")
    with pytest.raises(ValueError, match="sampler 'euler', allowed"):
        diffusion_sampling.plan("euler", alphas, 4)
    with pytest.raises(ValueError, match=r"3 PNDM steps, allowed: 4\.\.1000"):
        diffusion_sampling.plan("pndm", alphas, 3)


# --- arithmetic -----------------------------------------------------------------------------


def test_noise_of_a_quarter_signal_by_hand():
    clean, noise, alpha = jnp.full((1, 1), 2.0), jnp.full((1, 1), 4.0), jnp.array([0.25])
    np.testing.assert_allclose(diffusion.add_noise(clean, noise, alpha), 1 + 12**0.5, rtol=1e-5)
    np.testing.assert_allclose(diffusion.velocity(clean, noise, alpha), 2 - 3**0.5, rtol=1e-5)


@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_every_prediction_gives_image_and_noise_back(prediction):
    clean, noise, alpha = draw(0), draw(1), jnp.array([0.9, 0.1])
    noised = diffusion.add_noise(clean, noise, alpha)
    answer = diffusion.target(clean, noise, alpha, prediction)
    for found, expected in zip(
        diffusion.clean_and_noise(noised, answer, alpha, prediction), (clean, noise), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    velocity = diffusion.velocity(clean, noise, alpha)
    np.testing.assert_allclose(
        diffusion.noise_of_velocity(noised, velocity, alpha), noise, atol=1e-5
    )


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction 'x0', allowed"):
        diffusion.clean_and_noise(draw(0), draw(1), jnp.array(0.5), "x0")


@pytest.mark.parametrize("sampler", diffusion_sampling.NAMES)
@pytest.mark.parametrize("prediction", ["sample", "v"])
def test_a_perfect_network_leads_every_sampler_to_the_image(sampler, prediction):
    clean, noised = jnp.tanh(draw(0)), draw(1)
    alphas = diffusion_schedules.alphas_cumprod("shifted_cosine:0.5")
    plan = diffusion_sampling.plan(sampler, alphas, 6)
    state = diffusion_sampling.start(sampler, noised)
    for i in range(len(plan.timestep)):
        row = jax.tree.map(lambda leaf, i=i: leaf[i], plan)
        alpha = jnp.asarray(alphas)[row.timestep]
        noise = (state.noised - jnp.sqrt(alpha) * clean) / jnp.sqrt(1 - alpha)
        answer = diffusion.target(clean, noise, alpha, prediction)
        state = diffusion_sampling.step(
            sampler, state, row, answer, lambda i=i: draw(i + 2), prediction=prediction
        )
    # PNDM ends at time 0 rather than at the image, and extrapolates
    np.testing.assert_allclose(state.noised, clean, atol=0.05 if sampler == "pndm" else 1e-4)


def test_clipping_keeps_image_and_noise_consistent_unless_as_published():
    noised, answer, alpha = draw(0), 3 * draw(1), jnp.float32(0.5)
    step = {"prediction": "sample", "clip": (-1.0, 1.0)}
    reached, clean = diffusion.ddim_step(noised, answer, alpha, jnp.float32(0.5), **step)
    np.testing.assert_allclose(reached, noised, atol=1e-5)  # going nowhere changes nothing
    assert jnp.abs(clean).max() == 1
    published, _ = diffusion.ddim_step(
        noised, answer, alpha, jnp.float32(0.5), **step, compat="ml-4m"
    )
    assert jnp.abs(published - noised).max() > 0.1


def test_ranges_may_differ_between_channels():
    low, high = jnp.array([-1.0, -2.0, -3.0]), jnp.array([1.0, 2.0, 3.0])
    _, clean = diffusion.ddim_step(
        draw(0), 100 * draw(1), jnp.float32(0.5), jnp.float32(1), prediction="sample",
        clip=(low, high),
    )  # fmt: skip
    np.testing.assert_allclose(jnp.abs(clean).max(axis=(0, 1, 2)), high)


def test_all_of_the_variance_drawn_anew_is_ddpm():
    arguments = (draw(0), draw(1), jnp.float32(0.3), jnp.float32(0.6))
    ddim, _ = diffusion.ddim_step(*arguments, prediction="v", eta=1.0, noise=draw(2))
    ddpm, _ = diffusion.ddpm_step(*arguments, draw(2), prediction="v")
    np.testing.assert_allclose(ddim, ddpm, atol=1e-5)


def test_noise_of_a_row_does_not_depend_on_the_batch():
    few, many = (diffusion.sample_noise(jax.random.key(0), (n, 3, 2)) for n in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    assert not np.array_equal(many[0], many[1])


def test_conditions_are_dropped_at_their_rate_and_in_their_number():
    shape, key = (4000, 2, 3), jax.random.key(0)
    whole = diffusion.keep_condition(key, shape, 0.25)
    counts = np.asarray(whole.sum(axis=(1, 2)))
    assert set(counts) == {0, 6}
    assert abs((counts == 0).mean() - 0.25) < 0.03
    some = diffusion.keep_condition(key, shape, 1.0, (1, 2))
    counts = np.asarray(some.sum(axis=(1, 2)))
    assert set(counts) == {4, 5}
    assert abs((counts == 4).mean() - 0.5) < 0.03
    np.testing.assert_allclose(some.mean(axis=0), 0.75, atol=0.03)  # every position alike


def test_guidance_scales_the_difference():
    np.testing.assert_allclose(diffusion.guide(jnp.array([3.0]), jnp.array([1.0]), 2.0), 5.0)


# --- the published schedulers ---------------------------------------------------------------


def test_schedules_equal_the_published_ones(goldens):
    tensors, meta = goldens
    times = meta.get("alphas_times", range(1000))
    for name, expected in tensors.items():
        kind, schedule, *rest = name.split("/")
        if kind not in ("alphas_cumprod", "betas", "alphas_cumprod_pndm"):
            continue
        found = diffusion_schedules.alphas_cumprod(schedule, zero_terminal_snr=rest == ["zsnr1"])
        if kind == "betas":
            found = diffusion_schedules.betas_of(found)
        np.testing.assert_allclose(found[list(times)], expected, atol=5e-6, err_msg=name)


def test_times_equal_the_published_ones(goldens):
    alphas = diffusion_schedules.alphas_cumprod("linear")
    for name, expected in goldens[1]["timesteps"].items():
        sampler, spacing, *count = name.split("/")
        if sampler == "pndm":
            found = pndm.plan(alphas, 10, runge_kutta="skip0" in spacing).timestep
        else:
            found = diffusion_sampling.plan(
                sampler, alphas, int(count[0]), spacing=spacing, compat="ml-4m"
            ).timestep
        if isinstance(expected[-1], list):  # long ones: length, first three, last three
            found = [len(found), found[:3].tolist(), found[-3:].tolist()]
        assert list(found) == expected, name


def test_steps_equal_the_published_ones(goldens):
    tensors, meta = goldens
    sample, output, noise = (tensors[f"in/{n}"] for n in ("sample", "model_output", "noise"))
    for step in meta["steps"]:
        alphas = diffusion_schedules.alphas_cumprod(step["beta_schedule"])
        goal = step["t"] - 1000 // step["num_steps"]
        image = (sample, output, alphas[step["t"]], alphas[goal] if goal >= 0 else np.float32(1))
        read = {
            "prediction": PREDICTION[step["prediction_type"]],
            "clip": (-1, 1) if step["clip_sample"] or step["thresholding"] else None,
        }
        if step["scheduler"] == "ddim":
            found = diffusion.ddim_step(
                *image, **read, eta=step["eta"], noise=noise, compat="ml-4m"
            )
        else:
            found = diffusion.ddpm_step(*image, noise, **read)
        for value, name in zip(found, ("prev_sample", "pred_original_sample"), strict=True):
            expected = tensors[f"{step['key']}/{name}"]
            np.testing.assert_allclose(value, expected, **TOLERANCE, err_msg=str(step))


def test_noising_equals_the_published_one(goldens):
    tensors, meta = goldens
    sample, noise = tensors["in/sample"], tensors["in/noise"]
    for schedule in ("linear", "shifted_cosine:0.5"):
        alpha = diffusion_schedules.alphas_cumprod(schedule)[meta["add_noise_timesteps"]]
        for name, found in {
            "add_noise": diffusion.add_noise(sample, noise, alpha),
            "get_velocity": diffusion.velocity(sample, noise, alpha),
            "get_noise": diffusion.noise_of_velocity(sample, noise, alpha),
        }.items():
            np.testing.assert_allclose(found, tensors[f"{name}/{schedule}"], **TOLERANCE)


@pytest.mark.parametrize("runge_kutta", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_pndm_trajectories_equal_the_published_ones(goldens, runge_kutta, prediction):
    tensors, _ = goldens
    expected = tensors[f"pndm/skip{1 - runge_kutta}_{prediction}/trajectory"]
    alphas = diffusion_schedules.alphas_cumprod(
        "scaled_linear", zero_terminal_snr=False, start=0.00085, end=0.012
    )
    plan = pndm.plan(alphas, 10, runge_kutta=runge_kutta)
    noise = tensors["in/noise"]

    def step(state, row):
        index, row = row
        answer = 0.4 * state.noised + 0.2 * noise * (index + 1) / len(plan.timestep)
        state = pndm.step(state, row, answer, prediction=PREDICTION[prediction])
        return state, state.noised

    rows = (jnp.arange(len(plan.timestep)), plan)
    _, found = jax.lax.scan(step, pndm.start(jnp.asarray(tensors["in/sample"])), rows)
    np.testing.assert_allclose(found, expected, atol=2e-5)
