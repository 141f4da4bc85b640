"""Published tokenizers: weights in, same numbers out, and the same weights back."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments.parity import tokenizers as verify
from fourm_jax.convert import checkpoint, tokenizer_config, tokenizers
from fourm_jax.evals import drawing
from fourm_jax.evals.drawings import depth
from fourm_jax.models.backbones import vit
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.signal import Signal
from tests import golden_cases

SHIPPED = golden_cases.shipped("tokenizers")
OTHERS = ("mlp_lucid", "vqvae_clip", "vqvae_rgb", "vqvae_semseg")
CASES = (
    "mlp_lucid_euclid",
    "mlp_memcodes",
    "vqvae_sam_outconv",
    *(pytest.param(name, marks=golden_cases.FULL_SET) for name in OTHERS),
)


def folder_of(case):
    """Where the case ships, or else where the full set has it."""
    shipped = SHIPPED / case
    return shipped if shipped.is_dir() else golden_cases.directory("tokenizers") / case


def read(case):
    """(family, arguments, published tensors, inputs, outputs)."""
    folder = folder_of(case)
    config = json.loads((folder / "config.json").read_text())
    presets = json.loads((folder / "meta.json").read_text())["tiny_presets"]
    files = [folder / f"{name}.safetensors" for name in ("model", "inputs", "outputs")]
    built = tokenizer_config.arguments_of(config, presets=presets)
    return *built, *(safetensors.numpy.load_file(file) for file in files)


@pytest.mark.parametrize("case", CASES)
def test_every_stage_matches_and_the_weights_go_back_out(case):
    golden_cases.assert_all_pass(verify.check(folder_of(case)))


@pytest.mark.parametrize("case", CASES)
def test_importing_an_export_gives_the_same_variables(case):
    family, arguments, tensors, _, _ = read(case)
    module, variables, _ = tokenizers.import_tensors(family, arguments, tensors)
    exported = tokenizers.export_tensors(module, variables)
    again = tokenizers.import_tensors(family, arguments, exported)[1]
    jax.tree.map(np.testing.assert_array_equal, variables, again)


def test_an_imported_tokenizer_is_saved_and_loaded_like_our_own(tmp_path):
    family, arguments, tensors, inputs, outputs = read("vqvae_sam_outconv")
    module, variables, _ = tokenizers.import_tensors(family, arguments, tensors)
    base.save(tmp_path / "sam", module, variables, base.make_card("sam", family, arguments))
    assert "Infinity" not in (tmp_path / "sam" / "card.json").read_text()
    ids = base.load(tmp_path / "sam").encode(np.moveaxis(inputs["base/x"], 1, -1))
    np.testing.assert_array_equal(ids, outputs["base/tokens"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.linear_in.bias"), "tensor 'encoder.linear_in.bias' is missing"),
        (lambda t: t.update(surprise=np.zeros(1)), r"1 unexplained tensors, first: \['surprise'\]"),
        (
            lambda t: t.update({"quant_proj.weight": np.zeros((3, 32, 1, 1), np.float32)}),
            r"'quant_proj.weight': shape \(3, 32, 1, 1\) gives \(32, 3\)",
        ),
        (
            lambda t: t.update({"quant_proj.bias": t["quant_proj.bias"].astype(np.int32)}),
            "tensor 'quant_proj.bias' is int32, expected floats",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, message):
    family, arguments, tensors, _, _ = read("mlp_memcodes")
    change(tensors)
    with pytest.raises(ValueError, match=message):
        tokenizers.import_tensors(family, arguments, tensors)


def test_a_position_table_that_is_not_sin_cos_is_refused():
    family, arguments, tensors, _, _ = read("vqvae_sam_outconv")
    tensors["decoder.pos_emb"] = tensors["decoder.pos_emb"] + 1
    with pytest.raises(ValueError, match=r"'decoder\.pos_emb' is not the sin-cos table"):
        tokenizers.import_tensors(family, arguments, tensors)


def published(**changes):
    return {
        "n_channels": 3,
        "enc_type": "vit_b_enc",
        "dec_type": "vit_b_dec",
        "codebook_size": 1024,
        "latent_dim": 32,
        "post_mlp": True,
        "image_size": 224,
        "patch_size": 16,
        **changes,
    }


@pytest.mark.parametrize(
    ("config", "millions"),  # docs/published.md#tokenizer-recipes, trainable parameters
    [
        (published(), 180.79),
        (published(n_channels=64, n_labels=134), 218.58),
        (published(n_channels=512, patch_proj=False), 180.40),
        (published(n_channels=768, patch_proj=False, patch_size=14), 180.79),
        (published(n_channels=1280, patch_proj=False, patch_size=14), 181.58),
        (
            published(n_channels=1, latent_dim=1024, image_size=64, out_conv=True),
            181.53,
        ),
        (
            {
                "n_channels": 207,
                "enc_type": "BottleneckMLP/B_6-Wi_1024",
                "dec_type": "BottleneckMLP/B_6-Wi_1024",
                "codebook_size": 1024,
                "latent_dim": 1024,
                "quant_type": "memcodes",
                "num_codebooks": 8,
            },
            106.68,
        ),
        (
            {
                "n_channels": 768,
                "enc_type": "BottleneckMLP/B_6-Wi_1024",
                "dec_type": "BottleneckMLP/B_6-Wi_1024",
                "codebook_size": 8192,
                "latent_dim": 1024,
                "quant_type": "memcodes",
                "num_codebooks": 16,
            },
            115.04,
        ),
        (
            {
                "n_channels": 1280,
                "enc_type": "BottleneckMLP/B_6-Wi_1024",
                "dec_type": "BottleneckMLP/B_6-Wi_1024",
                "codebook_size": 8192,
                "latent_dim": 1024,
                "quant_type": "memcodes",
                "num_codebooks": 16,
            },
            116.09,
        ),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(config, millions):
    module = base.build(*tokenizer_config.arguments_of(config))
    params = base.abstract_variables(module)["params"]
    total = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    assert total == pytest.approx(millions, abs=0.01)


def test_imagenet_standardised_input_is_brought_to_minus_one_to_one():
    """undo_std: what has mean m and deviation s per channel becomes 2 x - 1."""
    _, arguments = tokenizer_config.arguments_of(published(undo_std=True))
    pixels = np.array([0.0, 0.25, 1.0], np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    raw = ((pixels[:, None] - mean) / std).astype(np.float32).reshape(1, 1, 3, 3)
    network = arguments["signal"].normalize(raw)
    np.testing.assert_allclose(network[0, 0], [[-1] * 3, [-0.5] * 3, [1] * 3], atol=1e-6)
    np.testing.assert_allclose(arguments["signal"].denormalize(network), raw, atol=1e-5)


HUB = "models--EPFL-VILAB--4M_tokenizers_"


@pytest.mark.parametrize(
    ("name", "channels", "dtype", "shape"),
    [
        ("rgb_16k_224-448", 3, "uint8", (2, 2, 3)),
        ("my_own_copy", 3, "uint8", (2, 2, 3)),
        ("depth_8k_224-448", 1, "float32", (2, 2)),
        ("depth_8k_224-448", 1, "uint16", (2, 2)),
        ("normal_8k_224-448", 3, "uint8", (2, 2, 3)),
        ("edge_8k_224-512", 1, "uint8", (2, 2)),
    ],
)
def test_a_published_tokenizer_reads_pictures_as_they_are_stored(name, channels, dtype, shape):
    signal = tokenizer_config.natural_signal(published(n_channels=channels), HUB + name)
    picture = np.zeros((1, *shape), dtype)
    signal.check(signal.from_stored(picture), name)
    assert signal.normalize(signal.from_stored(picture)).shape == (1, 2, 2, channels)


def test_published_pictures_are_brought_to_minus_one_to_one():
    for undo_std in (False, True):
        signal = tokenizer_config.natural_signal(published(undo_std=undo_std), "rgb")
        pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
        np.testing.assert_allclose(signal.normalize(pixels)[0, 0, 0], [-1, -0.6, 1], atol=1e-6)
        np.testing.assert_array_equal(signal.denormalize(signal.normalize(pixels)), pixels)


def test_published_pictures_as_floats_are_refused_whatever_their_range():
    signal = tokenizer_config.natural_signal(published(), "rgb")
    with pytest.raises(ValueError, match="pass the image as stored"):
        signal.check(np.full((1, 2, 2, 3), 200, np.float32), "tokenizer 'rgb'")


def test_published_normals_come_back_as_unit_vectors():
    signal = tokenizer_config.natural_signal(published(), HUB + "normal_8k_224-448")
    stored = np.array([255, 0, 0], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(signal.from_stored(stored)[0, 0, 0], [1, -1, -1])
    back = signal.denormalize(np.array([3.0, 0, 4.0], np.float32).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(back[0, 0, 0], [0.6, 0, 0.8], atol=1e-6)
    with pytest.raises(ValueError, match=r"got values in -1.0 … 2.0"):
        signal.check(np.array([-1, 2, 0], np.float32).reshape(1, 1, 1, 3), "normal")


def test_published_depth_comes_back_without_a_channel_as_drawings_take_it():
    signal = tokenizer_config.natural_signal(published(n_channels=1), HUB + "depth_8k_224-448")
    decoded = signal.denormalize(np.linspace(-2, 2, 8, dtype=np.float32).reshape(1, 2, 4, 1))
    assert decoded.shape == (1, 2, 4)
    assert depth.make(drawing.Scale())(decoded[0], None).shape == (2, 4, 3)


@pytest.mark.parametrize("changes", [{"n_labels": 134}, {"patch_proj": False}, {"n_channels": 64}])
def test_labels_and_features_have_no_other_signal(changes):
    assert tokenizer_config.natural_signal(published(**changes), "rgb") is None


def test_a_checkpoint_of_the_hub_is_called_as_its_repository(tmp_path):
    path = tmp_path / f"{HUB}depth_8k_224-448" / "snapshots" / "0a1b" / "model.safetensors"
    assert checkpoint._name(path) == f"{HUB}depth_8k_224-448"
    assert checkpoint._name(tmp_path / "depth" / "model.safetensors") == "depth"
    assert checkpoint._name(tmp_path / "depth_8k.safetensors") == "depth_8k"


def test_position_tables_may_be_of_another_image_size_on_each_side():
    config = published(image_size=448, image_size_enc=224, image_size_dec=336)
    module = base.build(*tokenizer_config.arguments_of(config))
    assert (module.grid, module.encoder.grid, module.decoder.grid) == (
        (28,) * 2,
        (14,) * 2,
        (21,) * 2,
    )
    tables = tokenizers.derived_tensors(module)
    assert {name: table.shape for name, table in tables.items()} == {
        "encoder.pos_emb": (1, 768, 14, 14),
        "decoder.pos_emb": (1, 768, 21, 21),
    }
    # half the size reads the middle of 2 x 2 blocks: cubic weights (a = -0.75) -3 19 19 -3 of 32
    table = np.asarray(vit.position_table((8, 8), (8, 8), 4), np.float64)
    weights = np.array([-3, 19, 19, -3]) / 32
    found = vit.position_table((8, 8), (4, 4), 4)[1, 2]
    rows, columns = table[1:5], slice(3, 7)
    np.testing.assert_allclose(
        found, np.einsum("i,j,ijd->d", weights, weights, rows[:, columns]), atol=1e-5
    )


def tiny(**changes):
    """A ViT of one block on either side, 16 pixels in patches of 8."""
    sizes = {"dim_tokens": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 4, "qkv_bias": True}
    config = published(
        enc_type="tiny_enc",
        dec_type="tiny_dec",
        image_size=16,
        patch_size=8,
        codebook_size=6,
        latent_dim=4,
        **changes,
    )
    return tokenizer_config.arguments_of(config, presets={"tiny_enc": sizes, "tiny_dec": sizes})


def zeros_of(module):
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), base.abstract_variables(module))


def test_a_decoder_with_a_patch_size_of_its_own_draws_at_its_own_resolution():
    family, arguments = tiny(patch_size_dec=4)
    module = base.build(family, arguments)
    assert (module.encoder.grid, module.decoder.grid) == ((2, 2), (4, 4))  # 16 / 8, 16 / 4
    tensors = tokenizers.export_tensors(module, zeros_of(module))
    assert tensors["decoder.pos_emb"].shape == (1, 8, 4, 4)
    assert tensors["decoder.out_proj.weight"].shape == (3 * 4 * 4, 8)
    bias = np.arange(3 * 4 * 4, dtype=np.float32)  # in (channel, row, column) order
    tensors["decoder.out_proj.bias"] = bias
    module, variables, _ = tokenizers.import_tensors(family, arguments, tensors)
    image = module.apply(variables, np.zeros((1, 2, 2), np.int32), method="decode")
    tile = np.moveaxis(bias.reshape(3, 4, 4), 0, -1)
    np.testing.assert_array_equal(image[0], np.tile(tile, (2, 2, 1)))
    exported = tokenizers.export_tensors(module, variables)
    np.testing.assert_array_equal(exported["decoder.out_proj.bias"], bias)


def test_a_vit_may_have_several_memcodes_per_position():
    module = base.build(*tiny(quant_type="memcodes", num_codebooks=2))
    tensors = tokenizers.export_tensors(module, zeros_of(module))
    assert tensors["quantize.codes"].shape == (2, 6, 2)
    ids = jax.eval_shape(
        lambda v: module.apply(v, np.zeros((1, 16, 16, 3), np.float32), method="encode"),
        base.abstract_variables(module),
    )
    assert ids.shape == (1, 2, 2, 2)  # rows, columns, codes


def test_a_preset_that_differs_from_every_published_one_is_refused():
    sizes = {"dim": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 2}
    with pytest.raises(ValueError, match="backbone 'vit_b_enc': mlp_ratio 2, allowed"):
        tokenizer_config.arguments_of(published(), presets={"vit_b_enc": sizes})


@pytest.mark.parametrize(
    ("size", "millions"), [("s", 27.71), ("b", 90.37), ("l", 311.49)]
)  # docs/published.md#tokenizers, with post_mlp, three channels
def test_published_encoders_have_the_published_number_of_parameters(size, millions):
    config = published(enc_type=f"vit_{size}_enc")
    module = base.build(*tokenizer_config.arguments_of(config))
    params = base.abstract_variables(module)["params"]["encoder"]
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert total / 1e6 == pytest.approx(millions, abs=0.01)


def test_a_raw_signal_can_replace_the_published_normalization():
    signal = Signal(dtype="uint8", num_channels=3, low=0.0, high=255.0, mean=127.5, std=127.5)
    _, arguments = tokenizer_config.arguments_of(published(), signal=signal)
    assert arguments["signal"] is signal


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enc_type": "vit_giant_enc"}, "backbone 'vit_giant_enc', known"),
        ({"codebook_size": None}, "config without 'codebook_size'"),
        ({"quant_type": "fsq"}, "quant_type 'fsq'"),
        ({"undo_std": True, "n_channels": 1}, "undo_std with n_channels 1, allowed: 3"),
        (
            {"dec_type": "unet_patched", "conditioning": "xattn"},
            "conditioning 'xattn' of decoder 'unet",
        ),
    ],
)
def test_an_unknown_config_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tokenizer_config.arguments_of(published(**changes))
