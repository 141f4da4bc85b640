"""Published trunks load with the same numbers, gradients included, and go back out bit for bit."""

import json
import shutil

import flax
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from experiments.parity import fm as verify
from experiments.parity import fm_vit
from fourm_jax.convert import fourm, fourm_config, names
from fourm_jax.parallel import mesh as meshes
from tests import golden_cases
from tests.convert import fm_cases


@pytest.mark.parametrize("name", fm_cases.NAMES)
def test_tokens_are_chosen_as_in_the_published_forward_pass(name):
    case = fm_cases.load(name)
    golden_cases.assert_all_pass(verify.choice(case, case.expected))


@pytest.mark.parametrize("name", fm_cases.NAMES)
def test_every_hidden_state_and_logit_equals_the_published_one(name):
    case = fm_cases.load(name)
    golden_cases.assert_all_pass(verify.hidden_states(case, case.expected))


@pytest.mark.parametrize("name", fm_cases.NAMES)
def test_losses_and_gradients_equal_the_published_ones(name):
    case = fm_cases.load(name)
    golden_cases.assert_all_pass(verify.losses(case, case.expected))


@pytest.mark.parametrize("name", fm_cases.NAMES)
def test_an_export_has_the_published_bits_and_so_has_a_hub_file(name):
    """Hub files lack the shared tensors, where the case recorded which."""
    golden_cases.assert_all_pass(verify.round_trip(fm_cases.load(name)))


@pytest.mark.parametrize("name", fm_cases.NAMES)
def test_importing_an_export_gives_the_same_bits(name, tmp_path):
    case = fm_cases.load(name)
    fourm.export(tmp_path / "out", case.model, case.params)
    (tmp_path / "out" / "config.json").unlink()  # the header holds the same config
    model, params = fourm.load(tmp_path / "out", overrides=case.overrides)
    assert model == case.model
    jax.tree.map(np.testing.assert_array_equal, params, case.params)


def test_weights_land_in_the_given_shardings():
    case = fm_cases.load(fm_cases.SHIPPED)
    sharding = NamedSharding(meshes.make_mesh(data=2, fsdp=4), P(None, "fsdp"))
    shardings = jax.tree.map(
        lambda leaf: (
            sharding
            if leaf.ndim == 2 and leaf.shape[1] % 4 == 0
            else NamedSharding(sharding.mesh, P())
        ),
        case.params,
    )
    _, params = fourm.load(case.directory, overrides=case.overrides, shardings=shardings)
    assert params["encoder_embedding"]["tokens"].sharding == sharding
    jax.tree.map(np.testing.assert_array_equal, params, case.params)


def test_equal_heads_and_tables_are_imported_as_tied(tmp_path):
    case = fm_cases.load(fm_cases.SHIPPED)
    tensors = load_file(case.directory / "model.safetensors")
    for key in list(tensors):
        if key.endswith("to_logits.weight"):
            tensors[key] = tensors[key.replace("to_logits", "token_emb")]
    shutil.copy(case.directory / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    model, params = fourm.load(tmp_path, overrides=case.overrides)
    assert model.tie_heads
    assert "heads" not in params["decoder_embedding"]


@golden_cases.FULL_SET
def test_the_encoder_alone_gives_the_published_features():
    path = golden_cases.directory("fm_vit") / "fm_gelu_bias_mod7.safetensors"
    golden_cases.assert_all_pass(fm_vit.check(path))


def broken(tmp_path, change=None, config=None):
    """Copy of the shipped case with changed tensors or config; returns its folder."""
    case = fm_cases.load(fm_cases.SHIPPED)
    tensors = load_file(case.directory / "model.safetensors")
    if change:
        change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    published = json.loads((case.directory / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(published | (config or {})))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mask_token"), "1 tensors are missing: \\['mask_token'\\]"),
        (lambda t: t.update(extra=np.zeros(1)), "does not explain: \\['extra'\\]"),
        (lambda t: t.update(mask_token=np.zeros((1, 1, 8), np.float32)), "shape \\(1, 1, 8\\)"),
        (lambda t: t.update(mask_token=np.zeros((1, 1, 32), int)), "is int64, expected floats"),
        (lambda t: t["decoder_norm.bias"].__iadd__(1), "'decoder_norm.bias' differs by 1"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path, change, message):
    overrides = fm_cases.load(fm_cases.SHIPPED).overrides
    with pytest.raises(ValueError, match=message):
        fourm.load(broken(tmp_path, change), overrides=overrides)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_float_type_are_read_as_float32(tmp_path, dtype):
    case = fm_cases.load(fm_cases.SHIPPED)
    tensors = load_file(case.directory / "model.safetensors")
    stored = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    shutil.copy(case.directory / "config.json", tmp_path)
    save_file(stored, tmp_path / "model.safetensors")
    _, params = fourm.load(tmp_path, overrides=case.overrides)
    jax.tree.map(
        lambda found, exact: np.testing.assert_array_equal(found, exact.astype(dtype)),
        params,
        jax.device_get(case.params),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"qkv_bias": True, "proj_bias": False, "mlp_bias": True, "norm_bias": False},
        {"act_layer": "ReLU", "gated_mlp": False, "mlp_ratio": 3},
        {"act_layer": "GELU", "gated_mlp": True, "norm_bias": False, "qk_norm": True},
        {"act_layer": "SiLU", "gated_mlp": False},
        {"image_size": 448, "decoder_sep_mask": False, "num_register_tokens": 2},
    ],
)
def test_every_setting_of_the_published_constructor_is_read_and_written_back(changes):
    domains = ["caption", "tok_dinov2_global"]
    config = {
        "domains_in": domains,
        "domains_out": domains,
        "dim": 24,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "mlp_ratio": 4,
        "gated_mlp": False,
        "act_layer": "GELU",
        "qk_norm": False,
        "share_modality_embeddings": True,
        "image_size": 224,
        "patch_size": 16,
        "qkv_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        **changes,
    }
    model = fourm_config.to_model(config)
    assert fourm_config.from_model(model) == config
    entries = list(names.entries(model))
    shapes = {entry.name: (entry.shape, entry.kind) for entry in entries}
    for part, linear in (("qkv", "attn.qkv"), ("proj", "attn.proj"), ("mlp", "mlp.fc2")):
        assert (f"encoder.0.{linear}.bias" in shapes) == config[f"{part}_bias"]
    kind = "parameter" if config["norm_bias"] else "buffer"
    assert shapes["decoder.0.query_norm.bias"] == ((24,), kind)
    assert ("encoder.0.mlp.fc3.weight" in shapes) == config["gated_mlp"]
    codes = (config["image_size"] // 56) ** 2  # only these take their size from the config
    assert shapes["encoder_embeddings.tok_dinov2_global.pos_emb"][0] == (1, codes, 24)
    parameters = {entry.path for entry in entries if entry.kind == "parameter"}
    assert parameters == set(fourm.parameter_shapes(model))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widht": 3}, "unknown argument in the config 'widht'"),
        ({"domains_in": ["tok_rbg@224"]}, "did you mean 'tok_rgb@224'"),
        ({"act_layer": "Tanh"}, "unknown act_layer 'Tanh'.* Allowed: ..GELU', 'ReLU', 'SiLU'"),
        ({"gated_mlp": False}, "3 tensors that this config does not explain: .*fc3"),
        ({"qkv_bias": True}, "missing: \\['decoder.0.cross_attn.kv.bias'"),
        ({"encoder_depth": 3}, "missing: \\['encoder.2"),
    ],
)
def test_configs_that_do_not_fit_are_refused_by_name(tmp_path, config, message):
    overrides = {} if "domains_in" in config else fm_cases.load(fm_cases.SHIPPED).overrides
    with pytest.raises(ValueError, match=message):
        fourm.load(broken(tmp_path, config=config), overrides=overrides)


def test_a_vocabulary_that_differs_from_the_registry_is_refused():
    case = fm_cases.load(fm_cases.SHIPPED)
    with pytest.raises(ValueError, match="expected \\(30000, 32\\); a vocabulary that differs"):
        fourm.load(case.directory)


def test_an_export_overwrites_nothing_and_leaves_nothing_partial(tmp_path):
    case = fm_cases.load(fm_cases.SHIPPED)
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="choose a new directory"):
        fourm.export(tmp_path / "out", case.model, case.params)
    incomplete = {**case.params, "encoder": {}}
    with pytest.raises(KeyError):
        fourm.export(tmp_path / "new", case.model, incomplete)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ValueError, match="only models with as_published"):
        fourm_config.from_model(case.model.clone(as_published=False))


def test_every_parameter_has_exactly_one_published_place():
    case = fm_cases.load(fm_cases.SHIPPED)
    covered = {
        path: np.zeros(leaf.shape, int)
        for path, leaf in flax.traverse_util.flatten_dict(case.params).items()
    }
    for entry in names.entries(case.model):
        if entry.kind == "parameter":
            covered[entry.path][entry.index] += 1
    assert all((count == 1).all() for count in covered.values())


def test_drafts_that_a_file_gives_as_a_list_are_kept_in_the_model():
    config = {
        **{side: ["caption", "det", "tok_rgb@224"] for side in ("domains_in", "domains_out")},
        "dim": 24,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
    }
    overrides = {"tok_rgb@224": {"drafts": ["det"]}}
    model = fourm_config.to_model(config, overrides=overrides)
    assert [spec.drafts for spec in model.modalities] == [(), (), ("det",)]
    assert hash(model) == hash(fourm_config.to_model(config, overrides=overrides))
