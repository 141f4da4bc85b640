"""One call or one command reads, converts and exports trunks and tokenizers, or leaves nothing."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fourm_jax
from fourm_jax.convert import checkpoint
from tests import golden_cases
from tests.convert import fm_cases

ROOT = pathlib.Path(__file__).parents[2]
TRUNK = golden_cases.shipped("fm") / fm_cases.SHIPPED
TOKENIZER = golden_cases.shipped("tokenizers") / "mlp_memcodes"


def overrides():
    return fm_cases.load(fm_cases.SHIPPED).overrides


def test_a_published_trunk_loads_with_one_call():
    case = fm_cases.load(fm_cases.SHIPPED)
    trunk = fourm_jax.load(TRUNK, overrides=overrides())
    assert trunk.model == case.model
    jax.tree.map(np.testing.assert_array_equal, trunk.params, case.params)


def test_a_converted_trunk_is_the_same_and_goes_back_out_bit_for_bit(tmp_path):
    case = fm_cases.load(fm_cases.SHIPPED)
    report = checkpoint.convert(TRUNK, tmp_path / "ours", overrides=overrides())
    published = load_file(TRUNK / "model.safetensors")
    assert {*report.used, *report.derived} == set(published)
    trunk = fourm_jax.load(tmp_path / "ours")  # needs no overrides any more
    assert trunk.model == case.model
    jax.tree.map(np.testing.assert_array_equal, trunk.params, case.params)
    checkpoint.export(tmp_path / "ours", tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert set(exported) == set(published)
    for name in report.used:
        np.testing.assert_array_equal(exported[name], published[name], err_msg=name)


def test_a_converted_tokenizer_encodes_as_recorded_and_goes_back_out(tmp_path):
    inputs, outputs = (load_file(TOKENIZER / f"{n}.safetensors") for n in ("inputs", "outputs"))
    checkpoint.convert(TOKENIZER, tmp_path / "ours")
    checkpoint.export(tmp_path / "ours", tmp_path / "out")
    raw, recorded = np.moveaxis(inputs["base/x"], 1, -1), outputs["base/tokens"]
    for folder in (TOKENIZER, tmp_path / "ours", tmp_path / "out"):
        ids = np.moveaxis(fourm_jax.load(folder).encode(raw), -1, 1)
        np.testing.assert_array_equal(ids.reshape(recorded.shape), recorded)
    published = load_file(TOKENIZER / "model.safetensors")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert set(exported) == set(published)
    for name, array in published.items():
        np.testing.assert_array_equal(exported[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("source", "needed"), [(TRUNK, "mask_token"), (TOKENIZER, "quant_proj.weight")]
)
def test_a_failed_conversion_leaves_nothing(tmp_path, source, needed):
    shutil.copytree(source, tmp_path / "broken")
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, "surprise": np.zeros(1)}, tmp_path / "broken" / "model.safetensors")
    options = {"overrides": overrides()} if source == TRUNK else {}
    with pytest.raises(ValueError, match="surprise"):
        checkpoint.convert(tmp_path / "broken", tmp_path / "ours", **options)
    del tensors[needed]
    save_file(tensors, tmp_path / "broken" / "model.safetensors")
    with pytest.raises(ValueError, match="missing"):
        checkpoint.convert(tmp_path / "broken", tmp_path / "ours", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    """A table that is wrong is found only when its turn comes."""
    shutil.copytree(TRUNK, tmp_path / "broken")
    tensors = load_file(TRUNK / "model.safetensors")
    tensors["decoder_norm.bias"] = tensors["decoder_norm.bias"] + 1
    save_file(tensors, tmp_path / "broken" / "model.safetensors")
    with pytest.raises(ValueError, match=r"'decoder_norm\.bias' differs by 1"):
        checkpoint.convert(tmp_path / "broken", tmp_path / "ours", overrides=overrides())
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "ours").mkdir()
    for function in (checkpoint.convert, checkpoint.export):
        with pytest.raises(FileExistsError, match="choose a new directory"):
            function(TOKENIZER, tmp_path / "ours")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def oversized(path):
    path.write_bytes(path.read_bytes() + b"more")


def pickled(path):
    path.write_bytes(pickle.dumps({"mask_token": 1}))


def integers(path):
    tensors = load_file(path)
    name = min(tensors)
    save_file({**tensors, name: tensors[name].astype(np.int32)}, path)


@pytest.mark.parametrize("source", [TRUNK, TOKENIZER], ids=["trunk", "tokenizer"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, r"model\.safetensors: no sound safetensors file: .* file not fully covered"),
        (oversized, r"model\.safetensors: no sound safetensors file"),
        (pickled, r"model\.safetensors: this is a pickle"),
        (integers, r"model\.safetensors: tensor '[\w.]+' is int32, expected floats"),
    ],
)
def test_spoilt_weights_are_refused_by_name_and_leave_nothing(tmp_path, source, spoil, message):
    shutil.copytree(source, tmp_path / "spoilt")
    spoil(tmp_path / "spoilt" / "model.safetensors")
    options = {"overrides": overrides()} if source == TRUNK else {}
    for action in (
        lambda: checkpoint.convert(tmp_path / "spoilt", tmp_path / "ours", **options),
        lambda: fourm_jax.load(tmp_path / "spoilt", **options),
    ):
        with pytest.raises(ValueError, match=message):
            action()
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt"]


def test_weights_beside_the_config_of_another_model_are_refused_by_the_first_that_misfits(tmp_path):
    for weights, config, message in (
        (TOKENIZER, TRUNK, r"tensors that this config does not explain: \['decoder"),
        (TRUNK, TOKENIZER, "tensor 'encoder.linear_in.weight' is missing"),
    ):
        folder = tmp_path / weights.name
        folder.mkdir()
        shutil.copy(weights / "model.safetensors", folder)
        shutil.copy(config / "config.json", folder)
        with pytest.raises(ValueError, match=message) as caught:
            fourm_jax.load(folder, **({"overrides": overrides()} if config == TRUNK else {}))
        assert str(folder / "model.safetensors") in str(caught.value)


def test_what_a_kill_left_behind_is_in_nobodys_way(tmp_path):
    (tmp_path / ".ours.1234.partial").mkdir()
    checkpoint.convert(TOKENIZER, tmp_path / "ours")
    assert fourm_jax.load(tmp_path / "ours").card.family == "mlp"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.clear(), "expected a description of format 1"),
        (lambda header: header.pop("config"), "no description of a trunk"),
        (lambda header: header.update(overrides=[1]), "no description of a trunk"),
        (lambda header: header["config"].update(dim=64), r"is \(.*\), expected \("),
    ],
)
def test_a_converted_trunk_whose_description_is_broken_is_refused(tmp_path, change, message):
    checkpoint.convert(TRUNK, tmp_path / "ours", overrides=overrides())
    header = json.loads((tmp_path / "ours" / checkpoint.TRUNK).read_text())
    change(header)
    (tmp_path / "ours" / checkpoint.TRUNK).write_text(json.dumps(header))
    with pytest.raises(ValueError, match=message):
        fourm_jax.load(tmp_path / "ours")


def test_pickles_and_other_configs_are_refused(tmp_path):
    (tmp_path / "model.pth").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="this is a pickle"):
        fourm_jax.load(tmp_path / "model.pth")
    shutil.copy(TOKENIZER / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match="neither a trunk's"):
        fourm_jax.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"sd_path": "x", "codebook_size": 2}))
    with pytest.raises(ValueError, match="tokenizer config without 'n_channels'"):
        fourm_jax.load(tmp_path)


def test_the_hub_without_its_extra_or_without_a_network_is_one_line(monkeypatch):
    with pytest.raises(ValueError, match="no such file or folder, and no Hub id"):
        fourm_jax.load("no/such/folder")
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install -e '.[hub]'")

    def offline(*_, **__):
        raise ConnectionError("network is unreachable\nand more lines")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"offline.*network is unreachable$"):
        fourm_jax.load("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install 'fourm_jax\[hub\]'"):
        fourm_jax.load("owner/name")


def test_the_hub_folder_is_used_and_only_safetensors_are_asked_for(monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install -e '.[hub]'")
    asked = {}

    def download(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(TOKENIZER)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert fourm_jax.load("owner/name").card.family == "mlp"
    patterns = ["config.json", "*.safetensors", "*.safetensors.index.json"]
    assert asked == {"name": "owner/name", "patterns": patterns}


def test_the_command_prints_the_licence_once_and_every_tensor(tmp_path):
    command = [sys.executable, "-m", "experiments.convert_checkpoint", f"--source={TRUNK}"]

    def run(*flags):
        return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)

    output = tmp_path / "ours"
    done = run(f"--output={output}", f"--overrides={TRUNK / 'modality_overrides.json'}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count(checkpoint.LICENCE) == 1
    assert "used mask_token" in lines
    assert lines[-2].endswith("derived, 0 left over")
    failed = run(f"--output={tmp_path / 'other'}")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]
