"""What was trained here goes out in the published format and comes back with the same numbers."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import fourm_jax
from fourm_jax.convert import checkpoint, fourm, published_form, tokenizer_config, tokenizer_export
from fourm_jax.modalities import registry
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import losses
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.tokenizers.trained import TrainedTokenizer
from tests import drawn
from tests.models import batches

MICRO = {"dim": 16, "depth": 1, "num_heads": 2}
IMAGE = {
    "dtype": "uint8",
    "num_channels": 3,
    "low": 0.0,
    "high": 255.0,
    "mean": 127.5,
    "std": 127.5,
}
SIZES = {"image_size": 8, "patch_size": 4, "num_codes": 16, "latent_dim": 4}
SIDES = {"encoder": {**MICRO, "post_mlp": False}, "decoder": {**MICRO, "post_mlp": False}}
VIT = {**SIZES, **SIDES, "signal": IMAGE, "quantizer": {"normalize_latents": True}}
MLP = {
    "signal": {"axes": "c", "num_channels": 6, "low": -9.0, "high": 9.0, "mean": 0.5},
    "num_codes": 16,
    "latent_dim": 8,
    "loss": "smooth_l1",
    "encoder": {"dim": 8, "depth": 1},
    "decoder": {"dim": 8, "depth": 2, "expansion": 2},
    "quantizer": {"num_heads": 2},
}
DIVAE = {
    **{key: VIT[key] for key in ("signal", "num_codes", "latent_dim", "quantizer")},
    "image_size": 64,
    "patch_size": 32,
    "encoder": MICRO,
    "decoder_type": "unet",
    "decoder": {},
    "prediction": "sample",
    "schedule": "linear",
    "condition_dropout": 0.1,
    "num_decode_steps": 2,
    "condition_dropout_tokens": [1, 3],
}
OWN = {
    "vit": ("vqvae", VIT),
    "vit with its own position tables": (
        "vqvae",
        {**VIT, "decoder": {**SIDES["decoder"], "grid": [4, 4]}, "loss": "l1"},
    ),
    "vit of features": ("vqvae", {**VIT, "patch_size": 1, "signal": {"num_channels": 6}}),
    "vit of classes": (
        "vqvae",
        {
            **VIT,
            "signal": {"axes": "hw", "kind": "classes", "dtype": "uint8", "num_classes": 5},
            "loss": "cross_entropy",
            "class_dim": 8,
        },
    ),
    "memcodes": ("mlp", MLP),
    "linear stack": (
        "mlp",
        {
            **MLP,
            "encoder": {"kind": "linear", "dim": 8, "depth": 1},
            "quantizer_type": "ema",
            "quantizer": {"metric": "euclidean", "commitment_weight": 1e-5},
        },
    ),
}


@pytest.fixture(autouse=True)
def micro_preset(monkeypatch):
    sides = {"vit_micro_enc": MICRO, "vit_micro_dec": MICRO}
    monkeypatch.setattr(tokenizer_config, "PRESETS", {**tokenizer_config.PRESETS, **sides})


def saved(folder, family, arguments) -> TrainedTokenizer:
    """A tokenizer of ours on disk, read back, with unit codes as training leaves them."""
    module = base.build(family, arguments)
    variables = drawn.variables(base.abstract_variables(module))
    if "codebook" in variables and module.quantizer.metric == "cosine":
        book = variables["codebook"]["quantizer"]
        book["codes"] /= np.linalg.norm(book["codes"], axis=-1, keepdims=True)
    base.save(folder, module, variables, base.make_card("mine", family, arguments))
    return base.load(folder)


@pytest.mark.parametrize("case", OWN)
def test_a_tokenizer_of_ours_comes_back_as_it_was(case, tmp_path):
    family, arguments = OWN[case]
    own = saved(tmp_path / "own", family, arguments)
    checkpoint.export(tmp_path / "own", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}
    for source in (tmp_path / "out", tmp_path / "out" / "model.safetensors"):
        back = fourm_jax.load(source)
        assert back.module == own.module
        jax.tree.map(np.testing.assert_array_equal, back.variables, own.variables)


@pytest.mark.parametrize("case", OWN)
def test_the_published_arguments_alone_describe_the_same_network(case, tmp_path):
    """Without our own entry a picture is normalized as published; the network is the same."""
    family, arguments = OWN[case]
    own = saved(tmp_path / "own", family, arguments)
    checkpoint.export(tmp_path / "own", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    del config[tokenizer_export.OWN]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    back = fourm_jax.load(tmp_path / "out")
    signal = own.module.signal
    raw = np.asarray(signal.example(jax.random.key(0), own.module.image_size, 2))
    network = np.asarray(signal.normalize(raw))

    def run(module, variables, raw):
        return jax.jit(lambda v, raw: module.apply(v, raw, method="stages"))(variables, raw)

    module = back.module
    if module.signal.kind == "continuous":
        module = module.clone(signal=Signal(num_channels=signal.num_channels))
    found = run(module, back.variables, network)
    expected = run(own.module, own.variables, raw)
    np.testing.assert_array_equal(found["tokens"], expected["tokens"])
    np.testing.assert_allclose(found["decoded"], expected["decoded"], atol=1e-5)


def test_a_diffusion_tokenizer_is_described_by_published_arguments():
    """Checked without its 196 M weights: what its config is read back as."""
    config = tokenizer_export.published_config("divae", DIVAE)
    assert config["dec_type"] == "unet_patched"
    assert (config["masked_cfg_low"], config["masked_cfg_high"]) == (1, 3)
    family, arguments = tokenizer_export.own_arguments(config)
    assert base.build(family, arguments) == base.build("divae", DIVAE)
    family, arguments = tokenizer_config.arguments_of(config)
    back, own = base.build(family, arguments), base.build("divae", DIVAE)
    for field in (
        "encoder",
        "decoder",
        "schedule",
        "num_times",
        "prediction",
        "sampler",
        "condition_dropout",
        "condition_dropout_tokens",
    ):
        assert getattr(back, field) == getattr(own, field), field


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "vqvae",
            {
                "backbone": "patch_mlp",
                "encoder": {"dim": 8, "depth": 1},
                "decoder": {"dim": 8, "depth": 1},
            },
            "has no PatchMLPEncoder as a backbone",
        ),
        ("vqvae", {"encoder": {**MICRO, "depth": 2}}, "has no ViT with {'dim': 16, 'depth': 2"),
        ("divae", {"sampler": "dpm"}, "has the samplers ddim, ddpm and pndm, not 'dpm'"),
        ("vqvae", {"encoder": MICRO}, "one post_mlp for both sides, here it is True and False"),
        ("vqvae", {"image_size": (8, 4)}, r"square images only, image_size is \(8, 4\)"),
        ("mlp", {"quantizer": {"num_heads": 2, "temperature": 0.5}}, "temperature 1, not 0.5"),
        ("divae", {"decoder": {"dim": 64}}, "has no UNet of these sizes"),
    ],
)
def test_what_the_published_format_does_not_have_is_named(family, changes, message):
    arguments = {"vqvae": VIT, "mlp": MLP, "divae": DIVAE}[family] | changes
    with pytest.raises(ValueError, match=message):
        tokenizer_export.published_config(family, arguments)


def test_a_refused_export_names_the_folder_and_leaves_nothing(tmp_path):
    saved(tmp_path / "own", "vqvae", {**VIT, "image_size": (8, 4)})
    with pytest.raises(ValueError, match="own: the published format has square images only"):
        checkpoint.export(tmp_path / "own", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 8}, "latent_dim is 8, 'fourm_jax' says 4; one was edited"),
        ({"fourm_jax": {"family": "vqgan", "arguments": {}}}, "unknown tokenizer family 'vqgan'"),
        ({"fourm_jax": {"family": "vqvae", "arguments": {"x": 1}}}, "describes no tokenizer"),
        ({"fourm_jax": [1]}, "describes no tokenizer"),
    ],
)
def test_an_edited_config_is_refused(change, message):
    config = {**tokenizer_export.published_config("vqvae", VIT), **change}
    with pytest.raises(ValueError, match=message):
        tokenizer_export.own_arguments(config)


def test_an_export_of_an_earlier_version_that_says_compat_is_read():
    arguments = {**VIT, "quantizer": {"as_published": True}}
    config = tokenizer_export.published_config("vqvae", arguments)
    stored = json.dumps(config["fourm_jax"]).replace('"as_published": true', '"compat": "ml-4m"')
    assert '"quantizer": {"compat": "ml-4m"}' in stored
    family, back = tokenizer_export.own_arguments({**config, "fourm_jax": stored})
    assert (family, back["quantizer"]) == ("vqvae", {"as_published": True})


def test_small_numbers_survive_the_header():
    assert tokenizer_export.header({"a": 1e-05, "b": 0.99, "c": None, "d": "vit_b_enc"}) == {
        "a": "1.0e-05",
        "b": "0.99",
        "c": "None",
        "d": "vit_b_enc",
    }


# --- trunks -----------------------------------------------------------------------------------

NAMES = (
    "rgb@224",
    "tok_semseg@224",
    "tok_dinov2_global",
    "t5_caption",
    "human_poses",
    "caption",
    "metadata",
)
# As configs/fourm.py trains it: no text longer than its published position table.
SHORTER = {"human_poses": {"max_tokens": 263}}


def own_trunk(**changes) -> FourM:
    """A small trunk with a shared text table, as `as_published=False` builds it."""
    specs = tuple(
        spec.replace(table="text") if spec.kind == "sequence" else spec
        for spec in registry.resolve("fourm", NAMES, SHORTER)
    )
    outputs = tuple(spec.name for spec in specs if spec.is_token)
    fields = {
        "modalities": specs,
        "inputs": NAMES,
        "outputs": outputs,
        "dim": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "mlp_dim": 40,
    }
    return FourM(**fields | changes)


def test_a_trunk_trained_from_scratch_comes_back_with_the_same_losses(tmp_path):
    model = own_trunk(qk_norm=True, num_registers=2)
    tokens = full_size_tokens(model)
    params = batches.parameters(model, tokens)["params"]
    fourm.export(tmp_path / "out", model, params)
    trunk = fourm_jax.load(tmp_path / "out")
    assert trunk.model.as_published
    assert [spec.name for spec in trunk.model.modalities] == list(NAMES)

    def loss(model, params):
        run = jax.jit(lambda p, t: model.apply({"params": p}, t, method="token_losses"))
        return run(params, tokens)

    own, back = loss(model, params), loss(trunk.model, trunk.params)
    np.testing.assert_allclose(back.loss, own.loss, rtol=1e-6, atol=1e-6)
    valid = tokens.targets.valid
    mean = losses.token_loss(own.loss, tokens.targets.modality, valid, len(NAMES))
    assert mean > 1


def full_size_tokens(model):
    """Random tokens of every modality, on the host."""
    example = fourm.example_tokens(model)
    rng = np.random.default_rng(0)
    num = 4 * len(NAMES)
    specs = model.modalities
    modality = np.arange(num) % len(specs) * np.ones((2, 1), int)
    outputs = np.flatnonzero([spec.is_token for spec in specs])
    wanted = np.sort(outputs[np.arange(num) % len(outputs)]) * np.ones((2, 1), int)
    lengths = np.array([spec.max_tokens for spec in specs])
    sizes = np.array([spec.vocab_size or spec.max_tokens for spec in specs])

    def ids(which):
        return rng.integers(0, sizes[which])

    inputs = example.inputs.replace(
        modality=modality,
        position=rng.integers(0, lengths[modality]),
        id=ids(modality),
        valid=np.arange(num) < np.full((2, 1), num - 1),
    )
    targets = example.targets.replace(
        modality=wanted,
        position=rng.integers(0, lengths[wanted]),
        input_id=ids(wanted),
        id=ids(wanted),
        valid=inputs.valid,
        order=np.arange(num) * np.ones((2, 1), int),
    )
    return example.replace(
        inputs=inputs,
        targets=targets,
        pixels={"rgb@224": rng.integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)},
        embeddings={"t5_caption": rng.normal(size=(2, 77, 4096)).astype(np.float32)},
    )


def test_shared_tables_are_written_once_per_modality_and_tokens_at_their_scale(tmp_path):
    model = own_trunk()
    params = batches.parameters(model, fourm.example_tokens(model))["params"]
    fourm.export(tmp_path / "out", model, params)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    side = "decoder_embeddings"
    caption, metadata = (tensors[f"{side}.{name}.token_emb.weight"] for name in NAMES[-2:])
    np.testing.assert_array_equal(caption, metadata)
    head = tensors[f"{side}.caption.to_logits.weight"]
    np.testing.assert_array_equal(caption, head * np.float32(16**0.5))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (batches.model(), "has no modality 'rgb', only"),
        (own_trunk(positions="learned"), "has no positions='learned', only sincos"),
        (
            own_trunk(
                modalities=(registry.resolve("fourm", ["caption"])[0].replace(vocab_size=99),),
                inputs=("caption",),
                outputs=("caption",),
            ),
            "'caption' has vocab_size 99, in the published format it is 30000",
        ),
        (
            own_trunk(
                modalities=registry.resolve("fourm", ["human_poses"]),
                inputs=("human_poses",),
                outputs=("human_poses",),
            ),
            "'human_poses': 263 positions for 275 tokens",
        ),
        (
            own_trunk(
                modalities=registry.resolve(
                    "fourm", ["caption"], {"caption": {"max_tokens": 300, "max_positions": 300}}
                ),
                inputs=("caption",),
                outputs=("caption",),
            ),
            "'caption' has max_tokens 300, in the published format it is 256",
        ),
    ],
    ids=["modality", "positions", "vocabulary", "poses", "length"],
)
def test_a_trunk_without_published_form_is_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        published_form.of(model, {})
