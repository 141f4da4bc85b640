"""A modality is one entry: from pictures to measured and drawn predictions with nothing else added.

The raw field is one that no other part of the code knows; a labeler of the test makes it.
"""

import jax
import numpy as np
import pytest
from PIL import Image

from configs import datasets, scenes, trunk
from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.data.crops import fields, policy
from fourm_jax.evals import any_to_any, galleries
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import build_data, pretokenize
from fourm_jax.labelers import base as labelers
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import from_config
from fourm_jax.tokenizers import base as tokenizers
from fourm_jax.train import loop, run_config

ENTRY = ModalitySpec(
    name="tok_heat",
    kind="grid",
    vocab_size=16,
    grid=(2, 2),
    source="heat",
    tokenizer="heat",
    decoding_order=1,
)
NAMES = ("rgb", "tok_heat")
SIDE = 8  # pixels of a crop: 2 x 2 patches of 4
CROPS = policy.CropPolicy(num_crops=2, size=(SIDE, SIDE))


def heat_labeler() -> labelers.Labeler:
    """Makes `heat` float32 [h, w]: how red a picture is, 0..1."""

    def label(records):
        return [{"heat": record["rgb"][..., 0].astype(np.float32) / 255} for record in records]

    output = labelers.Output(axes="hw", dtype="float32", low=0.0, high=1.0)
    return labelers.Labeler(name="heat", inputs=("rgb",), outputs={"heat": output}, label=label)


def build(tmp_path) -> None:
    """Raw records of pictures with the new field in tmp_path/raw."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(12):
        pixels = rng.integers(0, 255, (16, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    job = build_data.Job(
        images=tmp_path / "images",
        output=tmp_path / "raw",
        labelers=[*build_data.make_labelers(["rgb"], {}, 16), heat_labeler()],
        test_fraction=0.4,
    )
    build_data.build(job)


def save_tokenizer(directory) -> None:
    """An untrained tokenizer of the new field."""
    side = {"dim": 8, "depth": 1}
    arguments = {
        "signal": {"axes": "hw", "low": 0.0, "high": 1.0, "mean": 0.5, "std": 0.3},
        "image_size": SIDE,
        "patch_size": 4,
        "num_codes": 16,
        "latent_dim": 4,
        "backbone": "patch_mlp",
        "encoder": side,
        "decoder": side,
    }
    module = tokenizers.build("vqvae", arguments)
    example = module.signal.example(jax.random.key(0), module.image_size, batch=1)
    variables = jax.tree.map(  # random numbers of the right shapes: nothing to compile
        lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(leaf.dtype),
        jax.eval_shape(module.init, jax.random.key(1), example),
    )
    card = tokenizers.make_card("heat", "vqvae", arguments)
    tokenizers.save(directory / "heat", module, variables, card)


def tokenize(tmp_path, specs) -> None:
    """Two aligned crops of every record, as tokens, in tmp_path/data."""
    for split in ("train", "test"):
        job = pretokenize.Job(
            source=sources.open_source("token_shards", split, {"directory": tmp_path / "raw"}),
            output=tmp_path / "data",
            split=split,
            recipe={},
        )
        assert not pretokenize.tokenize(job, specs, tmp_path, crops=CROPS).left_out.num_records


def make_config(tmp_path):
    mixture = {"input_alphas": dict.fromkeys(NAMES, 1.0), "target_alphas": {"tok_heat": 1.0}}
    data = datasets.tokens("heat", NAMES, mixture, data=str(tmp_path / "data"))
    return trunk.make(
        family="scenes",
        inputs=NAMES,
        outputs=("tok_heat",),
        overrides={"rgb": {"grid": (2, 2)}},
        **scenes.settings("nano", data, runlocal=True, num_targets=4),
    )


def held_out(tmp_path, config, specs) -> any_to_any.HeldOut:
    """Crops of the held-out records: raw, and as tokens."""

    def raw(split):
        reader = sources.open_source("token_shards", split, {"directory": tmp_path / "raw"})
        crops = [CROPS.crop_one(reader[i], i, ["rgb", "heat"], 0) for i in range(len(reader))]
        return {name: np.stack([crop[name] for crop in crops]) for name in ("rgb", "heat")}

    truth, train = raw("test"), raw("train")
    count = len(truth["rgb"])
    batches = pipeline.one_pass(
        run_config.make_datasets(config, "test"), specs, batch_size=count, num_records=count
    )
    tokens, _ = next(batches)
    return any_to_any.HeldOut(
        truth=truth, tokens={name: tokens[name] for name in NAMES}, train=train
    )


def test_a_modality_of_a_config_is_cropped_as_its_entry_says(tmp_path):
    build(tmp_path)
    save_tokenizer(tmp_path)
    entry = {"kind": "grid", "vocab_size": 16, "grid": (2, 2), "source": "heat"}
    added = {"tok_heat": {**entry, "tokenizer": "heat"}}  # in no family
    specs = registry.resolve("scenes", NAMES, {"rgb": {"grid": (2, 2)}}, added)

    tokenize(tmp_path, specs)

    crops = sources.open_source("token_shards", "test", {"directory": tmp_path / "data"})[0]
    assert crops["tok_heat"].shape == (CROPS.num_crops, 4)
    assert "heat" not in registry.sources()


def test_the_crop_of_a_run_comes_before_that_of_the_registry():
    own = registry.resolve("scenes", ("tok_edge",), {"tok_edge": {"crop": "labels"}})
    record = {"edge": np.zeros((4, 4), np.uint8)}
    record["edge"][:2] = 9
    (mixed,) = fields.crop_record(record, [[0, 0, 4, 4, 0]], (6, 6))
    (nearest,) = fields.crop_record(record, [[0, 0, 4, 4, 0]], (6, 6), specs=own)
    assert len(np.unique(mixed["edge"])) > 2
    assert np.unique(nearest["edge"]).tolist() == [0, 9]


def test_a_new_field_is_built_cropped_tokenized_trained_generated_measured_and_drawn(
    monkeypatch, tmp_path
):
    monkeypatch.setitem(registry.FAMILIES, "scenes", (*registry.SCENES, ENTRY))
    config = make_config(tmp_path)
    specs = from_config.resolve_specs(config)
    build(tmp_path)
    save_tokenizer(tmp_path)
    tokenize(tmp_path, specs)

    result = loop.train(config, tmp_path / "run", show_progress=False, devices=jax.devices()[:1])
    assert result.metrics["loss/tok_heat"] > 0

    model, heat = from_config.make_model(config), tokenizers.load(tmp_path / "heat")
    generator = Generator(model, result.state.eval_params, {"heat": heat})
    data = held_out(tmp_path, config, specs)
    tasks = any_to_any.from_one(generator, data, "rgb")
    assert set(tasks) == {"rgb->tok_heat"}
    assert tasks["rgb->tok_heat"]["metric"] == "mse"
    assert tasks["rgb->tok_heat"]["n"] == len(data)

    painter = galleries.Painter(generator, data.train)
    gallery = galleries.any_to_any_gallery(generator, data, painter, ["rgb"], num_records=1)
    (_, cells), *_ = gallery.rows
    assert gallery.columns == ["", "rgb (given)", "tok_heat"]
    assert [cell.shape for cell in cells] == [(SIDE, SIDE, 3)] * 2


def test_modalities_of_one_field_agree_on_how_it_is_read_and_cropped():
    for family in registry.FAMILIES.values():
        for spec in family:
            other = registry.of_source(spec.source)
            assert spec.crop == other.crop, spec.name
            if spec.kind == other.kind:
                assert spec.text_form == other.text_form, spec.name


def test_a_field_that_no_modality_reads_names_the_nearest():
    with pytest.raises(ValueError, match="record field 'dept'; did you mean 'depth'"):
        registry.of_source("dept")
