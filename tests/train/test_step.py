"""The step on a problem small enough to work out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fourm_jax.train import metrics, optimizer, step


class Line:
    """Predict y = w x; loss 0.5 (w x - y)^2, mean over the batch."""

    labels = ("even", "odd")
    flops_per_sample = None
    packed, function = {}, {}

    def init(self, key, batch):
        return {"w": jnp.zeros(())}, {"seen": jnp.zeros(())}

    def loss(self, params, model_state, batch, key, train):
        error = 0.5 * (params["w"] * batch["x"] - batch["y"]) ** 2
        even = jnp.arange(len(error)) % 2 == 0
        sums = jnp.stack([jnp.where(even, error, 0).sum(), jnp.where(even, 0, error).sum()])
        counts = jnp.stack([even.sum(), (~even).sum()]).astype(jnp.float32)
        aux = {"loss": metrics.mean(error), "loss/*": (sums, counts)}
        aux["noise"] = (jax.random.uniform(key), jnp.float32(1))
        return error.mean(), step.Aux(aux, {"seen": model_state["seen"] + 1})


def batch_of(*pairs):
    x, y = zip(*pairs, strict=True)
    return {"x": jnp.asarray(x), "y": jnp.asarray(y)}


def start(ema_decay=0.0, lr=0.5, transform=None):
    settings = optimizer.Settings(
        lr=lr, weight_decay=0.0, b1=0.0, b2=0.0, schedule="constant", ema_decay=ema_decay
    )
    task, example = Line(), batch_of((1.0, 2.0))
    transform = transform or optimizer.make(settings)
    root = jax.random.key(0)
    names = step.metric_names(task, *task.init(root, example), example, root)
    state = step.init_state(task.init, names, transform, example, root, ema=ema_decay > 0)
    schedule = optimizer.make_schedule(settings, 10)
    train_step = step.make_train_step(task, transform, schedule, ema_decay=ema_decay)
    return state, jax.jit(lambda state, batch: train_step(state, batch, root))


def test_metrics_are_sums_over_all_samples_since_the_last_log_point():
    state, train_step = start(lr=0.0)
    state, _ = train_step(state, batch_of((1.0, 2.0), (1.0, 4.0)))  # errors 2 and 8
    state, _ = train_step(state, batch_of((1.0, 0.0), (1.0, 2.0), (1.0, 0.0)))  # 0, 2, 0
    values = metrics.compute(state.metrics, Line.labels)
    assert values["loss"] == pytest.approx(12 / 5)
    assert values["loss/even"] == pytest.approx(2 / 3)
    assert values["loss/odd"] == pytest.approx(10 / 2)
    assert values["grad_norm"] == pytest.approx((3 + 2 / 3) / 2)
    assert values["skipped"] == 0


def test_the_norm_of_the_update_is_the_length_of_the_way_that_the_parameters_go():
    state, train_step = start(lr=0.5)  # with b1 = b2 = 0 each step of Adam is the rate long
    state, _ = train_step(state, batch_of((1.0, 2.0)))
    state, _ = train_step(state, batch_of((1.0, np.nan)))  # skipped: counts as none
    assert metrics.compute(state.metrics, Line.labels)["update_norm"] == pytest.approx(0.5)

    def update(grads, moments, params):
        return {"w": 3 * grads["w"]}, moments

    three = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    state, train_step = start(lr=0.25, transform=three)
    state, _ = train_step(state, batch_of((1.0, 2.0)))  # gradient -2, so w goes 0.25 * 6 far
    assert state.params["w"] == pytest.approx(1.5)
    assert metrics.compute(state.metrics, Line.labels)["update_norm"] == pytest.approx(1.5)


def test_a_norm_from_rounded_directions_is_that_of_the_directions():
    direction = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(300, 100)), jnp.float32)}
    _, norm = step._norm_beside(direction, {})
    np.testing.assert_allclose(norm, np.linalg.norm(direction["w"]), rtol=1e-4)


def test_an_average_of_the_parameters_follows_them():
    state, train_step = start(ema_decay=0.75)
    state, _ = train_step(state, batch_of((1.0, 2.0)))
    assert state.params["w"] == pytest.approx(0.5)  # one unit step of Adam times the rate
    assert state.ema_params["w"] == pytest.approx(0.125)
    assert state.eval_params is state.ema_params


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    state, train_step = start(ema_decay=0.75)
    state, _ = train_step(state, batch_of((1.0, 2.0)))
    after, loss = train_step(state, batch_of((1.0, np.nan)))
    assert np.isnan(loss)
    assert after.step == 2
    for name in ("params", "opt_state", "ema_params", "model_state"):
        before, now = jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(after, name))
        np.testing.assert_array_equal(before, now)
    values = metrics.compute(after.metrics, Line.labels)
    assert values["loss"] == 2.0
    assert values["skipped"] == 0.5


def test_an_update_that_is_not_finite_is_counted_and_keeps_every_number():
    def update(grads, moments, params):
        direction = {name: jnp.where(jnp.abs(g) > 2.5, jnp.inf, g) for name, g in grads.items()}
        return direction, moments

    overflowing = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    state, train_step = start(ema_decay=0.75, transform=overflowing)
    first, loss = train_step(state, batch_of((1.0, 1.0)))
    assert np.isfinite(loss)
    second, loss = train_step(first, batch_of((1.0, 9.0)))
    assert np.isnan(loss)
    assert metrics.compute(second.metrics, Line.labels)["skipped"] == 0.5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(second))
    assert first.params == second.params
    assert first.ema_params == second.ema_params


def test_every_step_draws_anew_and_every_run_the_same():
    def draws():
        state, train_step = start()
        for _ in range(2):
            state, _ = train_step(state, batch_of((1.0, 2.0)))
            yield float(state.metrics["noise"][0])

    first, second = draws()
    assert second != 2 * first
    assert list(draws()) == [first, second]


def test_a_metric_that_counted_nothing_is_left_out():
    sums = {"loss/*": (jnp.array([2.0, 0.0]), jnp.array([4.0, 0.0]))}
    assert metrics.compute(sums, ("rgb", "depth")) == {"loss/rgb": 0.5}
