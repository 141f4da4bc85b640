"""Guides with weights, intermediate targets, verifiers, seeds per row, and steps as they come."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.generate import published
from fourm_jax.generate import defaults, guides, job, parallel, schedule, scoring
from fourm_jax.generate.generated import Generated
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.guides import Guide
from fourm_jax.generate.results import Decoded, DecodedResults
from fourm_jax.generate.schedule import Target
from fourm_jax.modalities import registry
from fourm_jax.parallel.mesh import make_mesh
from fourm_jax.tokenizers.text import TextTokenizer
from tests.generate import tiny

EDGE = Target(name="edge", scheme="roar", num_tokens=9, num_steps=2)


@pytest.fixture(scope="module")
def generator():
    text = TextTokenizer.train(
        ["a red cone", "a blue cube"], vocab_size=230, num_sentinels=10, num_bins=2
    )
    return Generator(*tiny.trunk(), {"text": text})


def rgb(num_rows=2):
    return tiny.conditions(num_rows, ("rgb",))["rgb"]["pixels"]


def edges(generator, conditions, weighted=(), **options):
    options = {"plan": [EDGE], **options}
    return generator.generate(conditions, ["edge"], guides=weighted, **options).ids["edge"]


def test_one_guide_of_weight_one_is_a_condition(generator):
    plain = edges(generator, {"rgb": rgb(), "caption": "a red cone"})
    guided = edges(generator, {"rgb": rgb()}, [Guide(name="caption", value="a red cone", weight=1)])
    np.testing.assert_array_equal(plain, guided)


def test_two_texts_of_one_modality_pull_and_push(generator):
    red = Guide(name="caption", value="a red cone", weight=1.0)
    blue = Guide(name="caption", value="a blue cube", weight=0.0)
    alone = edges(generator, {"rgb": rgb()}, [red])
    np.testing.assert_array_equal(alone, edges(generator, {"rgb": rgb()}, [red, blue]))
    away = Guide(name="caption", value="a blue cube", weight=-8.0)
    pushed = edges(generator, {"rgb": rgb()}, [red, away])
    assert (pushed != alone).any()
    swapped = edges(generator, {"rgb": rgb()}, [away, red])
    np.testing.assert_array_equal(pushed, swapped)


def test_guides_of_different_lengths_and_of_texts_work_together(generator):
    weighted = [
        Guide(name="caption", value="a red cone a red cone", weight=2.0),
        Guide(name="caption", value="a", weight=-1.0),
        Guide(name="rgb", value=rgb(1)[0], weight=1.5),
    ]
    made = generator.generate({"depth": np.zeros((2, 9), int)}, ["edge", "vector"], guides=weighted)
    assert made.known["edge"].all()
    assert made.known["vector"].all()


def test_drafts_follow_what_pulls_and_all_guides_see_them():
    plain = [
        schedule.Step(target="depth", scheme="maskgit", guidance=2.0),
        schedule.Step(target="edge", scheme="maskgit"),
        schedule.Step(target="vector", scheme="maskgit"),
    ]
    pair = [
        Guide(name="caption", value="a red cone", weight=3.0),
        Guide(name="caption", value="a blue cube", weight=-1.0),
    ]
    steps = guides.weighted(plain, pair, drafts=("depth",))
    assert [one.guidance for one in steps] == [(2.0, 0.0), (3.0, -1.0), (3.0, -1.0, guides.GROWN)]


def test_a_picture_from_guides_alone_has_drafts_where_one_of_them_pulls(generator):
    model = generator.model.clone(
        modalities=tuple(
            spec.replace(drafts=("edge",)) if spec.name == "depth" else spec for spec in tiny.SPECS
        )
    )
    parts = dataclasses.replace(generator.parts, model=model)
    red, away = (Guide(name="caption", value="a red cone", weight=w) for w in (1.0, -1.0))
    made = job.prepare(parts, {}, ["depth"], changes={}, guides=[red, away])
    assert (made.drafts, made.targets) == (("edge",), ["edge", "depth"])
    assert job.prepare(parts, {}, ["depth"], changes={}, guides=[away]).drafts == ()
    with_map = job.prepare(parts, {"rgb": rgb(1)}, ["depth"], changes={}, guides=[red])
    assert with_map.drafts == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caption=a red cone", "guide 'caption=a red cone', allowed: NAME=VALUE:WEIGHT"),
        ("caption=a red cone:nan", "allowed: NAME=VALUE:WEIGHT"),
        ("caption:3", "allowed: NAME=VALUE:WEIGHT"),
    ],
)
def test_a_guide_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        guides.parse(text)


def test_a_guide_is_read_with_its_last_colon():
    assert guides.parse("caption=a cone: red:-1.5") == ("caption", "a cone: red", -1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guides": [Guide(name="rgb", value=rgb(1), weight=1)]}, "'rgb' is a guide and a condit"),
        ({"guides": [Guide(name="edge", value=[0] * 9, weight=1)]}, "'edge' is a guide and a targ"),
        ({"guidance": float("nan")}, "guidance nan, allowed: finite numbers"),
        ({"num_steps": 0}, "num_steps 0, allowed: from 1 on"),
        ({"seed": -1}, "-1"),
        ({"seed": [1]}, "1 seeds for 2 rows, allowed: one, or one per row"),
        ({"plan": [Target(name="depth", scheme="roar", num_tokens=9)]}, "no step for target 'edge"),
        (
            {"guides": [Guide(name="caption", value="a", weight=1)], "guidance": 3.0},
            "guidance 3.0 and guides, allowed: one of both; each guide has its own weight",
        ),
        ({"plan": [EDGE], "num_steps": 2}, "num_steps 2 and a plan of all steps, allowed: one of"),
        ({"intermediate": ["rgb"]}, "unknown target 'rgb'"),
        ({"intermediate": ["depth", "depth"]}, "target 'depth' is given twice"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(generator, options, message):
    with pytest.raises(ValueError, match=message):
        generator.generate({"rgb": rgb()}, ["edge"], **options)


def test_a_row_with_its_own_seed_is_what_it_is_alone(generator):
    both = edges(generator, {"rgb": rgb()}, seed=[3, 4])
    alone = edges(generator, {"rgb": rgb()[1:]}, seed=4)
    np.testing.assert_array_equal(both[1], alone[0])


def test_devices_share_a_batch_and_change_nothing(generator):
    mesh = make_mesh(data=2, devices=jax.devices()[:2])
    shared = edges(generator.on_mesh(mesh), {"rgb": rgb(3)})
    np.testing.assert_array_equal(shared, edges(generator, {"rgb": rgb(3)}))


def test_what_is_computed_on_a_mesh_knows_the_mesh(generator, monkeypatch):
    sizes = []

    def predict(*_, **__):
        sizes.append(jax.sharding.get_abstract_mesh().size)
        return {"edge": np.zeros((2, 1))}

    monkeypatch.setattr(parallel, "predict", predict)
    generator.on_mesh(make_mesh(data=2, devices=jax.devices()[:2])).predict(
        {"rgb": rgb()}, ["edge"]
    )
    assert sizes == [2]


def test_intermediate_targets_come_first_and_guide_those_after_them(generator):
    made = generator.generate({"rgb": rgb()}, ["depth"], intermediate=["edge"])
    assert list(made.ids) == ["edge", "depth"]
    parts = generator.parts
    steps = job.prepare(
        parts, {"rgb": rgb()}, ["depth"], changes={"guidance": 2.0}, intermediate=["edge"]
    ).steps
    assert [(step.target, step.guided) for step in steps] == [
        ("edge", ("rgb",)),
        ("depth", ("rgb", "edge")),
    ]


def test_a_plan_by_target_differs_from_the_defaults_where_it_says_so(generator):
    plan = {"edge": {"scheme": "roar", "num_steps": 3, "guidance": 2.0}}
    steps = job.prepare(
        generator.parts, {"rgb": rgb()}, ["depth", "edge"], plan=plan, changes={}
    ).steps
    counts = [(step.target, step.num_tokens) for step in steps]
    assert counts == [("depth", 9), ("edge", 3), ("edge", 3), ("edge", 3)]
    assert {step.guidance for step in steps if step.target == "edge"} == {2.0}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"egde": {}}, "unknown target of the plan 'egde'; did you mean 'edge'"),
        ({"edge": {"steps": 3}}, "unknown field of the plan for 'edge' 'steps'.*num_steps"),
        ({"edge": {"top_p": 2}}, "plan for 'edge': top_p is 2, allowed: a number in 0"),
        ({"edge": {"num_steps": "3"}}, "num_steps is '3', allowed: an integer in 1"),
        ({"edge": {"scheme": "autoregressive"}}, "'edge' of kind 'grid': scheme 'autoregressive'"),
    ],
)
def test_a_plan_by_target_of_what_is_not_there_is_refused(generator, plan, message):
    with pytest.raises(ValueError, match=message):
        generator.generate({"rgb": rgb()}, ["edge"], plan=plan)


def test_every_published_preset_fits_the_published_modalities():
    names = {spec.name for spec in registry.FOURM}
    for preset in published.PRESETS:
        plan = published.get_config(f"preset={preset}").to_dict()
        job.check_plan(plan, names)
        for name, fields in plan.items():
            (spec,) = registry.resolve("fourm", [name])
            target = defaults.target(spec, registry.FOURM, spec.num_tokens, **fields)
            assert schedule.build_chained_schedule([], [target])
    with pytest.raises(ValueError, match="unknown preset 'rgb_to_al'; did you mean 'rgb_to_all'"):
        published.get_config("preset=rgb_to_al")


def test_all_means_what_nothing_is_given_of(generator):
    made = generator.generate({"caption": "a red cone", "depth": [0] * 9})
    assert sorted(made.ids) == ["edge", "vector"]


def test_a_stream_ends_with_what_generate_returns(generator):
    plan = [EDGE, Target(name="caption", scheme="autoregressive")]
    seen = list(generator.stream({"rgb": rgb()}, ["edge", "caption"], plan=plan, seed=2))
    assert [name for name, _ in seen] == ["edge", "edge", "caption"]
    assert [one.known["edge"].sum() for _, one in seen] == [2 * 5, 2 * 9, 2 * 9]
    whole = generator.generate({"rgb": rgb()}, ["edge", "caption"], plan=plan, seed=2)
    for name in whole.ids:
        np.testing.assert_array_equal(seen[-1][1].ids[name], whole.ids[name])


def test_the_score_of_a_text_is_the_mean_log_probability_of_its_tokens(generator, monkeypatch):
    good = generator.generate({"rgb": rgb()}, ["caption"])
    pairs = zip(good.ids["caption"], good.known["caption"], strict=True)
    likely = generator.score({"rgb": rgb()}, "caption", [row[known] for row, known in pairs])
    other = generator.score({"rgb": rgb()}, "caption", ["a blue", "a cube"])
    with tiny.accelerator(monkeypatch, scoring._of_sequence) as seen:
        packed = generator.score({"rgb": rgb()}, "caption", ["a blue", "a cube"])
    assert [batch.inputs.packed for batch in seen] == [True]
    np.testing.assert_allclose(packed, other, rtol=1e-4)
    assert (likely > other).all()
    assert (likely <= 0).all()
    probabilities = generator.predict({"rgb": rgb()}, ["edge"])["edge"]
    best = generator.score({"rgb": rgb()}, "edge", probabilities.argmax(-1))
    np.testing.assert_allclose(best, np.log(probabilities.max(-1)).mean(-1), rtol=1e-5)


def test_cells_that_a_value_does_not_know_do_not_count_in_its_score(generator):
    ids = np.array([[1, 2, 3, 4, 5, 6, 0, 1, 2]] * 2)
    known = np.array([[True, True, *[False] * 7], [False] * 9])
    scores = generator.score({"rgb": rgb()}, "edge", {"ids": ids, "known": known})
    probabilities = generator.predict({"rgb": rgb()}, ["edge"])["edge"][0]
    expected = np.log([probabilities[0, 1], probabilities[1, 2]]).mean()
    np.testing.assert_allclose(scores, [expected, np.nan], rtol=1e-5)


def test_the_best_sample_is_the_one_that_its_condition_is_likely_from(generator):
    conditions = {"rgb": rgb(), "caption": ["a red cone", "a blue cube"]}
    best = generator.best_of(conditions, ["edge"], 3, verifier="caption", plan=[EDGE])
    every = generator.generate(conditions, ["edge"], num_samples=3, plan=[EDGE])
    repeated = [text for text in conditions["caption"] for _ in range(3)]
    scores = generator.score({"edge": every.ids["edge"]}, "caption", repeated).reshape(2, 3)
    np.testing.assert_allclose(best.scores, scores.max(axis=1), rtol=1e-5)
    chosen = every.ids["edge"].reshape(2, 3, 9)[[0, 1], scores.argmax(axis=1)]
    np.testing.assert_array_equal(best.ids["edge"], chosen)
    with pytest.raises(ValueError, match="unknown verifier among the conditions 'det'"):
        generator.best_of(conditions, ["edge"], 2, verifier="det")


def test_a_verifier_sees_a_picture_as_pixels_and_all_else_as_ids():
    model, params = tiny.trunk()
    names = {"rgb": "picture", "depth": "picture"}  # "depth" is what a picture becomes
    specs = tuple(s.replace(source=names.get(s.name, s.source)) for s in model.modalities)
    ids = {"depth": np.zeros((1, 9), np.int32), "edge": np.zeros((1, 9), np.int32)}
    raw = np.zeros((1, 4, 6, 3), np.uint8)
    made = Generated(
        ids=ids,
        known={name: np.ones((1, 9), bool) for name in ids},
        decoded=DecodedResults({"depth": Decoded(raw)}, {}),
    )
    given = Generator(model.clone(modalities=specs), params)._as_conditions(made, list(ids))
    assert list(given) == ["rgb", "edge"]
    assert given["rgb"] is raw
    assert given["edge"]["ids"] is ids["edge"]
