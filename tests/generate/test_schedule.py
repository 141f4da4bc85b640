"""Token, temperature and chained schedules of generation, against the published numbers."""

import json

import numpy as np
import pytest

from fourm_jax.generate import chain, schedule
from fourm_jax.generate.schedule import Step, Target
from tests import golden_cases


@pytest.fixture(scope="module")
def published():
    return json.loads((golden_cases.shipped("generation") / "schedules.json").read_text())


def counts_of(published, rule, num_steps, num_tokens):
    return published[f"{rule}_schedule/{num_steps}/{num_tokens}"]


def test_token_schedules_match_the_published_ones(published):
    for name, expected in published.items():
        rule, *sizes = name.split("/")
        if rule in ("cosine_schedule", "linear_schedule"):
            rule = rule.removesuffix("_schedule")
            found = schedule.token_counts(rule, *map(int, sizes), as_published=True)
            assert found == expected, name


def test_temperature_schedules_match_the_published_ones(published):
    functions = {
        "linear_temp_schedule": schedule.linear_temperature,
        "decreasing_temp_schedule": schedule.decreasing_temperature,
        "onex_temp_schedule": lambda *arguments: schedule.onex_temperature(
            *arguments, as_published=True
        ),
    }
    for name, expected in published.items():
        rule, *arguments = name.split("/")
        if rule in functions:
            tokens, num_steps, num_tokens, *numbers = arguments
            counts = counts_of(published, tokens, num_steps, num_tokens)
            values = functions[rule](counts, *map(float, numbers))
            assert values == pytest.approx(expected, rel=1e-6, abs=1e-8), name


def test_a_schedule_continues_where_an_in_painting_left_off(published):
    for name, expected in published.items():
        if name.startswith("continue_schedule"):
            _, rule, num_steps, num_tokens, done = name.split("/")
            counts = counts_of(published, rule, num_steps, num_tokens)
            assert schedule.continue_tokens(counts, int(done)) == expected, name


def test_chained_schedules_match_the_published_ones(published):
    for case in published["chained"]:
        arguments = case["args"]
        columns = zip(
            arguments["target_domains"],
            arguments["autoregression_schemes"],
            arguments["tokens_per_target"],
            arguments["decoding_steps"],
            arguments["token_decoding_schedules"],
            arguments["temps"],
            arguments["temp_schedules"],
            arguments["cfg_scales"],
            strict=True,
        )
        targets = [
            Target(
                name=name,
                scheme=scheme,
                num_tokens=num_tokens,
                num_steps=num_steps or 1,
                tokens=tokens or "linear",
                temperature=temperature,
                temperatures=rule,
                guidance=scale,
            )
            for name, scheme, num_tokens, num_steps, tokens, temperature, rule, scale in columns
        ]
        steps = schedule.build_chained_schedule(
            arguments["cond_domains"],
            targets,
            grow_conditioning=arguments["cfg_grow_conditioning"],
            as_published=True,
        )
        for step, expected in zip(steps, case["schedule"], strict=True):
            assert step.target == expected["target_domain"]
            assert step.scheme == expected["scheme"]
            assert step.num_tokens == (expected["num_tokens"] or 0)
            assert step.temperature == pytest.approx(expected["temperature"], rel=1e-6)
            assert step.guidance == expected["cfg_scale"]
            assert list(step.guided) == expected["cfg_cond_domains"]


@pytest.mark.parametrize("rule", schedule.TOKEN_SCHEDULES)
@pytest.mark.parametrize(("num_steps", "num_tokens"), [(1, 64), (8, 64), (50, 196), (300, 196)])
def test_every_step_writes_something_and_all_of_them_write_everything(rule, num_steps, num_tokens):
    counts = schedule.token_counts(rule, num_steps, num_tokens)
    assert sum(counts) == num_tokens
    assert min(counts) > 0


def test_onex_reads_its_curve_at_the_tokens_written_rather_than_at_the_step():
    ours = schedule.onex_temperature([50, 50], 6.0, 0.5, 0.5)
    published = schedule.onex_temperature([50, 50], 6.0, 0.5, 0.5, as_published=True)
    assert ours[0] == published[0]
    assert ours[1] == published[1] == 0.5  # nothing is left after the last step
    ours = schedule.onex_temperature([50, 25, 25], 6.0, 0.5, 0.5)
    published = schedule.onex_temperature([50, 25, 25], 6.0, 0.5, 0.5, as_published=True)
    assert ours[1] < published[1]


def test_a_finished_sequence_joins_the_guided_conditions_except_in_the_published_rule():
    targets = [
        Target(name="caption", scheme="autoregressive"),
        Target(name="tok_rgb", scheme="roar", num_tokens=4),
    ]
    assert schedule.build_chained_schedule(["rgb"], targets)[-1].guided == ("rgb", "caption")
    published = schedule.build_chained_schedule(["rgb"], targets, as_published=True)
    assert published[-1].guided == ("rgb",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "maskgid"}, "unknown scheme 'maskgid'; did you mean 'maskgit'"),
        ({"tokens": "cosin"}, "unknown token schedule 'cosin'; did you mean 'cosine'"),
        ({"temperatures": "onex"}, "unknown temperature schedule 'onex'"),
        ({"num_tokens": 0}, "'tok_rgb': 0 tokens in 1 steps"),
    ],
)
def test_a_wrong_schedule_is_refused_with_what_is_allowed(change, message):
    fields = {"name": "tok_rgb", "scheme": "maskgit", "num_tokens": 4, **change}
    with pytest.raises(ValueError, match=message):
        schedule.build_chained_schedule([], [Target(**fields)])


def test_a_step_cannot_write_less_than_nothing():
    with pytest.raises(ValueError, match="'tok_rgb': -1 tokens"):
        Step(target="tok_rgb", scheme="roar", num_tokens=-1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance": float("nan")}, "step for 'a': guidance nan is not finite"),
        ({"guidance": (1.0, float("inf"))}, r"guidance \(1.0, inf\) is not finite"),
        ({"temperature": float("-inf")}, "temperature -inf is not finite"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        schedule.Step(target="a", scheme="maskgit", **values)


def test_a_seed_that_makes_no_key_is_refused():
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"seed {seed}, allowed: 0 to"):
            chain.row_keys(seed, np.arange(2))
