"""One modality more: the old outputs stay, the new one is learned, the result is a run folder."""

import jax
import numpy as np
import pytest
from etils import epath

from configs.data import scenes
from configs.finetune import add_to_scenes
from configs.tokenizers import signals
from fourm_jax import loading
from fourm_jax.data import collate
from fourm_jax.data import datasets as sources
from fourm_jax.data.sources import fake
from fourm_jax.jobs import add_modality, phases
from fourm_jax.modalities import registry
from fourm_jax.models import from_config, parts, trained
from fourm_jax.train import init, loop, run_config
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import run_folder
from tests.jobs import untrained
from tests.train import tiny

KNOWN = ("rgb", "tok_depth")
DEPTH = {"axes": "hw", "low": 0.5, "high": 10.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run folder of the tiny trunk, with two tokenizers."""
    folder = tmp_path_factory.mktemp("source")
    config = tiny.trunk(num_steps=0)
    loop.train(config, folder / run_folder.TRUNK, show_progress=False, devices=jax.devices()[:1])
    untrained.save(folder / run_folder.TOKENIZERS, "depth", DEPTH)
    untrained.save(folder / run_folder.TOKENIZERS, "edge", signals.EDGE)
    return folder


def job(modality="tok_instance_edge", similar=None, **changes):
    """The shipped config, for a model that knows less."""
    whole = config_lib.to_json(add_to_scenes.get_config(f"modality={modality},runlocal"))
    names = modality.split("+")
    whole["tokenize"]["modalities"] |= {"names": [*KNOWN, *names], "overrides": {}}
    whole["optimizer"]["warmup_steps"] = 0
    whole["similar"] = similar or {}
    whole["mixture"] = add_to_scenes.mixture(names, KNOWN)
    return config_lib.override(config_lib.from_json(whole), changes)


def run(config, source, workdir):
    return add_modality.run(config, source, workdir, phases.Phases(workdir, add_modality.PHASES))


def test_a_frozen_model_keeps_what_it_knew_and_generates_the_new_modality(source, tmp_path):
    workdir = tmp_path / "more"
    workdir.mkdir()
    summary = run(job(old_rate=0.0), source, workdir)
    assert summary["knew"]["change"] == 0
    assert summary["knew"]["before"] == summary["knew"]["after"]
    assert set(summary["tasks"]) == {"rgb->tok_instance_edge"}
    generator = loading.load_generator(workdir)
    assert generator.model.outputs == ("tok_depth", "caption", "tok_instance_edge")
    before = trained.read_weights(str(source)).parts
    after = trained.read_weights(str(workdir)).parts
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def test_a_model_is_not_added_to_in_its_own_folder(source):
    with pytest.raises(ValueError, match="is the source: name a folder of this job alone"):
        run(job(), source, source)


def test_records_are_cropped_as_the_config_says(source, tmp_path):
    config = job()
    whole = config_lib.to_json(config)
    whole["tokenize"]["crops"] = {"num_crops": 2, "size": (32, 32)}
    summary = run(config_lib.from_json(whole), source, tmp_path)
    first = sources.open_source("token_shards", "test", {"directory": tmp_path / "data"})[0]
    assert first["tok_instance_edge"].shape == (2, 64)
    assert summary["tasks"]["rgb->tok_instance_edge"]["n"] == 16


def test_embeddings_and_head_start_from_those_of_a_similar_modality(source, tmp_path):
    places = epath.Path(source), epath.Path(tmp_path)
    before = add_modality.source_config(places[0])
    settings = add_modality.training_config(
        job(similar={"tok_instance_edge": "tok_depth"}), before, *places
    )
    task, weights = run_config.make_task(settings), trained.read_weights(str(source))
    batch = fake.batch(task.model.modalities, 4)
    params, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    fresh = parts.split(empty, task.packed)
    found, report = init.plan(fresh, run_config.init_settings(settings), weights)
    assert report.new == ()
    own = [name for name in found if name.endswith("/tok_instance_edge")]
    assert len(own) >= 3  # what it is, and its codes on both sides
    for name in own:
        known = name.replace("tok_instance_edge", "tok_depth")
        np.testing.assert_array_equal(found[name].rows, weights.parts[known], err_msg=name)


@pytest.mark.parametrize(
    ("similar", "message"),
    [
        ({"tok_instance_edgee": "tok_depth"}, "similar 'tok_instance_edgee'; did you mean"),
        ({"tok_instance_edge": "tok_dept"}, "'tok_dept'; did you mean 'tok_depth'"),
    ],
)
def test_a_similar_modality_is_one_that_the_model_makes(similar, message, source, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(job(similar=similar), source, tmp_path)


def test_a_modality_is_added_to_a_model_that_got_one_the_same_way(source, tmp_path):
    places = epath.Path(source), epath.Path(tmp_path)
    once = add_modality.training_config(job(), add_modality.source_config(places[0]), *places)
    twice = add_modality.training_config(job("poses"), once, *places)
    names = [data["name"] for data in twice.data]
    assert names == ["fake", "with_the_new", "with_the_new_2"]
    run_config.make_task(twice)


def test_what_fills_up_the_last_batch_counts_in_no_loss(source, monkeypatch):
    one_pass = add_modality.pipeline.one_pass
    whole = config_lib.to_json(add_modality.source_config(epath.Path(source)))
    whole["data"][0]["arguments"] |= {"num_records": 3}  # of a batch of 8
    before = config_lib.from_json(whole)

    def others(*arguments, **options):
        for batch, valid in one_pass(*arguments, **options):
            kept = np.where(valid, np.arange(len(valid)), 0)
            yield jax.tree.map(lambda part, kept=kept: part[kept], batch), valid

    found = add_modality.old_losses(before, epath.Path(source))
    monkeypatch.setattr(add_modality.pipeline, "one_pass", others)
    assert add_modality.old_losses(before, epath.Path(source)) == found


def test_what_was_known_is_judged_on_records_of_every_data_set(tmp_path):
    whole = config_lib.to_json(tiny.trunk(num_steps=0))
    (one,) = whole["data"]
    whole["data"] = [
        {
            **one,
            "name": "/".join(names),
            "arguments": {"names": names, "num_records": 9 * add_modality.NUM_BATCHES},
            "fields": {name: name for name in names},
        }
        for names in (["rgb", "tok_depth"], ["caption"])
    ]
    before = config_lib.from_json(whole)
    loop.train(before, tmp_path / "trunk", show_progress=False, devices=jax.devices()[:1])
    assert set(add_modality.old_losses(before, epath.Path(tmp_path))) == {
        "tok_depth",
        "caption",
        "all",
    }


def test_a_kill_while_the_tokenizers_are_copied_leaves_none_of_them(source, tmp_path, monkeypatch):
    def killed(origin, target, **options):
        (epath.Path(target) / "depth").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(add_modality.shutil, "copytree", killed)
    with pytest.raises(KeyboardInterrupt):
        run(job(), source, tmp_path)
    assert not (tmp_path / run_folder.TOKENIZERS).exists()


def test_a_model_that_has_it_from_the_start_trains_as_long_from_nothing(source, tmp_path):
    before = add_modality.source_config(epath.Path(source))
    before = config_lib.override(before, {"num_steps": 7})
    places = epath.Path(source), epath.Path(tmp_path)
    later = add_modality.training_config(job(), before, *places)
    whole = add_modality.training_config(job(from_start=True), before, *places)
    assert whole.num_steps == 7 + later.num_steps
    assert "init" in later
    assert "init" not in whole
    assert (whole.data, whole.modalities) == (later.data, later.modalities)
    assert whole.optimizer == before.optimizer


def test_from_the_start_a_modality_is_one_of_the_quickstarts_own():
    config = add_to_scenes.get_config("modality=tok_instance_edge+poses,from_start")
    assert config.replay == 0
    assert set(config.tokenize.modalities.names) == {*scenes.NAMES, "tok_instance_edge", "poses"}
    assert config.tokenize.num_records.train == scenes.NUM_RECORDS["train"]
    theirs, own = scenes.mixture(), config.mixture.to_dict()
    for side, new in (("input_alphas", "poses"), ("target_alphas", "tok_instance_edge")):
        assert own[side].pop(new) == own[side]["tok_edge"]
    assert own["input_alphas"].pop("tok_instance_edge") == own["input_alphas"]["tok_edge"]
    assert own == theirs


def test_float_vectors_become_an_input_and_old_records_lack_them(source, tmp_path):
    before = add_modality.source_config(epath.Path(source))
    settings = add_modality.training_config(
        job("poses"), before, epath.Path(source), epath.Path(tmp_path)
    )
    old, new = run_config.make_task(before), run_config.make_task(settings)
    key, batch = jax.random.key(0), fake.batch(new.model.modalities, 4)
    assert batch["poses"]["embeddings"].shape == (4, 4, 7)
    params, _ = jax.eval_shape(new.init, key, batch)
    loss, _ = jax.eval_shape(lambda p, b: new.loss(p, {}, b, key, True), params, batch)
    assert loss.shape == ()

    def of_old_records(params, batch):
        tokens = add_modality.renumbered(old.sample(key, batch), old.model, new.model)
        return new.model.apply({"params": params}, tokens, method="token_losses").loss

    losses = jax.eval_shape(of_old_records, params, fake.batch(old.model.modalities, 4))
    assert losses.shape == (4, old.num_targets)


def test_two_modalities_are_added_at_once():
    config = add_to_scenes.get_config("modality=tok_instance_edge+poses")
    assert set(config.added) == {"tok_instance_edge", "poses"}
    assert config.mixture["input_alphas"]["poses"] == [0.0, 0.5, 1.0]
    assert config.mixture["target_alphas"]["tok_instance_edge"] == [1.0, 0.5, 0.0]
    assert "poses" not in config.mixture["target_alphas"]
    with pytest.raises(ValueError, match="modality to add 'posess'; did you mean 'poses'"):
        add_to_scenes.get_config("modality=posess")


def test_a_map_is_a_picture_of_one_channel():
    spec = from_config.resolve_specs(
        config_lib.from_json(
            {
                "modalities": {
                    "family": "scenes",
                    "inputs": ["edge_map"],
                    "outputs": [],
                    "added": {"edge_map": add_to_scenes.ADDED["edge_map"]},
                }
            }
        )
    )
    rows = [{"edge": np.full((32, 32), 255, np.uint8)}]
    batch = collate.collate(rows, [{"edge_map": "edge"}], [0], spec)
    assert batch["edge_map"]["pixels"].shape == (1, 32, 32, 1)


def test_a_modality_of_a_config_needs_a_kind_and_a_name_of_its_own():
    with pytest.raises(ValueError, match="modality 'ndvi' has no kind"):
        registry.resolve("scenes", ("ndvi",), added={"ndvi": {"num_channels": 1}})
    with pytest.raises(ValueError, match="'rgb' is in family 'scenes': give it in overrides"):
        registry.resolve("scenes", ("rgb",), added={"rgb": {"kind": "pixels"}})
    with pytest.raises(ValueError, match="field of modality 'ndvi' 'chanels'; did you mean"):
        registry.resolve("scenes", ("ndvi",), added={"ndvi": {"kind": "pixels", "chanels": 1}})
    with pytest.raises(ValueError, match="channels 1, expected their names; num_channels says"):
        registry.resolve("scenes", ("ndvi",), added={"ndvi": {"kind": "pixels", "channels": 1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": 1.0}, "replay 1.0, allowed: 0 <= x < 1"),
        ({"old_rate": 2.0}, "old_rate 2.0, allowed: 0 <= x <= 1"),
    ],
)
def test_shares_out_of_range_are_refused(changes, message, source, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(job(**changes), source, tmp_path)


def test_a_folder_without_tokenizers_is_no_source(source, tmp_path):
    with pytest.raises(ValueError, match="is no run folder: no "):
        run(job(), source / run_folder.TRUNK, tmp_path)
