"""VQControlNet: its encoder, ids and codes load; ControlNet and Stable Diffusion are left out."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fourm_jax
from fourm_jax.convert import checkpoint, tokenizer_config, tokenizers
from fourm_jax.tokenizers import base, vqvae
from tests import drawn
from tests.convert.test_checkpoint import ROOT

PRESET = {"dim": 8, "depth": 1, "num_heads": 2}
VQ = {
    "n_channels": 3,
    "enc_type": "vit_micro_enc",
    "codebook_size": 16,
    "latent_dim": 4,
    "image_size": 8,
    "patch_size": 4,
    "post_mlp": True,
}
CONFIG = {
    **VQ,
    "sd_path": "runwayml/stable-diffusion-v1-5",
    "image_size_sd": 512,
    "pretrained_cn": False,
    "cls_free_guidance_dropout": 0.1,
    "masked_cfg": False,
    "enable_xformer": False,
    "adapter": None,
}
ELSEWHERE = {
    "decoder.controlnet.conv_in.weight": np.zeros((4, 3), np.float32),
    "decoder.unet.conv_in.weight": np.zeros((4, 4), np.float16),
    "decoder.text_encoder.text_model.embeddings.position_ids": np.zeros((1, 77), np.int64),
    "decoder.empty_str_encoding": np.zeros((1, 77, 4), np.float32),
    "vae.decoder.conv_in.weight": np.zeros((4, 4), np.float32),
}


@pytest.fixture(autouse=True)
def micro_preset(monkeypatch):
    sides = {"vit_micro_enc": PRESET, "vit_micro_dec": PRESET}
    monkeypatch.setattr(tokenizer_config, "PRESETS", {**tokenizer_config.PRESETS, **sides})


@pytest.fixture
def vq_part():
    """A VQ-VAE with the same encoder and codebook: (module, variables)."""
    module = base.build(*tokenizer_config.arguments_of({**VQ, "dec_type": "vit_micro_dec"}))
    return module, drawn.variables(base.abstract_variables(module))


@pytest.fixture
def published(tmp_path, vq_part):
    """A checkpoint in the published naming: VQ part, then the rest."""
    exported = tokenizers.export_tensors(*vq_part)
    front = ("encoder.", "quant_proj.", "quantize.")
    tensors = {name: array for name, array in exported.items() if name.startswith(front)}
    folder = tmp_path / "published"
    folder.mkdir()
    save_file({**tensors, **ELSEWHERE}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_ids_and_codes_are_those_of_its_vq_part(published, vq_part):
    module, variables = vq_part
    raw = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    loaded = fourm_jax.load(published)
    ids = loaded.encode(raw)
    network = np.asarray(loaded.module.signal.normalize(raw))
    np.testing.assert_array_equal(ids, module.apply(variables, network, method="encode"))
    assert ids.shape == (2, 2, 3)
    codes = np.asarray(variables["codebook"]["quantizer"]["codes"])
    twin = vqvae.build(**tokenizer_config.arguments_of({**VQ, "dec_type": "vit_micro_dec"})[1])
    np.testing.assert_array_equal(loaded.codes(ids), codes[ids])
    np.testing.assert_array_equal(loaded.codes(ids), twin.apply(variables, ids, method="codes"))


def test_every_tensor_is_used_derived_or_named_as_not_supported(published, tmp_path):
    report = checkpoint.convert(published, tmp_path / "ours")
    assert set(report.unsupported) == set(ELSEWHERE)
    assert report.derived == ("encoder.pos_emb",)
    names = load_file(published / "model.safetensors")
    assert {*report.used, *report.derived, *report.unsupported} == set(names)
    assert str(report).endswith("1 derived, 5 not supported, 0 left over")
    raw = np.zeros((1, 8, 8, 3), np.uint8)
    expected = fourm_jax.load(published).encode(raw)
    np.testing.assert_array_equal(fourm_jax.load(tmp_path / "ours").encode(raw), expected)


def test_a_tensor_of_neither_part_is_unexplained(published):
    tensors = load_file(published / "model.safetensors")
    save_file({**tensors, "surprise": np.zeros(1)}, published / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 unexplained tensors, first: \['surprise'\]"):
        fourm_jax.load(published)


def test_drawing_training_and_exporting_say_what_is_missing(published, tmp_path):
    loaded = fourm_jax.load(published)
    missing = "ControlNet on Stable Diffusion 1.5, which is not part of this package"
    with pytest.raises(ValueError, match=missing):
        loaded.decode(np.zeros((1, 2, 2), np.int32))
    with pytest.raises(ValueError, match=missing):
        loaded.module.apply(loaded.variables, np.zeros((1, 8, 8, 3), np.float32), True)
    with pytest.raises(ValueError, match=missing):
        checkpoint.export(published, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_a_checkpoint_without_its_vq_part_is_refused_by_the_command(tmp_path):
    """Only the tensors that are not read: the first one that is needed is named."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "enc_type": "vit_s_enc"}))
    save_file(ELSEWHERE, tmp_path / "model.safetensors")
    command = [sys.executable, "-m", "experiments.convert_checkpoint", f"--source={tmp_path}"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'out'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "tensor 'encoder.proj.weight' is missing" in done.stderr
