"""Published DiVAEs come in, give the published numbers, and go out bit for bit."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from fourm_jax.convert import divae, divae_config, linking, tokenizer_config, tokenizers
from fourm_jax.models import mlp
from fourm_jax.ops import diffusion, diffusion_sampling
from fourm_jax.tokenizers import base
from tests import drawn, golden_cases
from tests.convert import divae_cases

TOLERANCE = {"atol": 2e-4, "rtol": 1e-4}
SAMPLERS = {"DDIMScheduler": "ddim", "DDPMScheduler": "ddpm", "PNDMScheduler": "pndm"}
RGB = {
    "enc_type": "vit_b_enc", "dec_type": "unet_patched", "n_channels": 3, "codebook_size": 16384,
    "latent_dim": 32, "image_size": 224, "patch_size": 16, "post_mlp": True,
    "prediction_type": "sample", "beta_schedule": "linear",
}  # fmt: skip


def channels_last(tensor):
    return jnp.asarray(np.moveaxis(tensor, -3, -1))


@pytest.fixture(scope="module", params=["divae_unet", "divae_uvit"])
def case(request):
    """Files of a golden case and the imported model."""
    folder = golden_cases.directory("tokenizers") / request.param
    files = {n: load_file(folder / f"{n}.safetensors") for n in ("model", "inputs", "outputs")}
    files |= {n: json.loads((folder / f"{n}.json").read_text()) for n in ("config", "meta", "runs")}
    family, arguments = tokenizer_config.arguments_of(
        files["config"], presets=files["meta"]["tiny_presets"], compat="ml-4m"
    )
    return files, *tokenizers.import_tensors(family, arguments, files["model"])


def test_every_published_tensor_has_a_place_and_comes_back_bit_for_bit(case):
    files, module, variables, report = case
    assert set(report.used) | set(report.derived) == set(files["model"])
    exported = tokenizers.export_tensors(module, variables)
    assert set(exported) == set(files["model"])
    for name in report.used:
        np.testing.assert_array_equal(exported[name], files["model"][name], err_msg=name)


def test_ids_and_codes_are_the_published_ones(case):
    files, module, variables, _ = case
    stages = jax.jit(lambda x: module.apply(variables, x, method="stages"))(
        channels_last(files["inputs"]["x"])
    )
    np.testing.assert_array_equal(stages["tokens"][..., 0], files["outputs"]["tokens"])
    for name in ("encoder_out", "quant_proj_out", "quant", "tokens_to_embedding"):
        expected = channels_last(files["outputs"][name])
        np.testing.assert_allclose(stages[name], expected, **TOLERANCE)


def test_the_decoder_and_every_sampling_run_give_the_published_numbers(case):
    files, module, variables, _ = case
    inputs, outputs = files["inputs"], files["outputs"]
    values, noised = channels_last(outputs["quant"]), channels_last(outputs["noised"])

    @jax.jit
    def denoise(noised, times, mask):
        return module.apply(variables, noised, times, values, mask, method="denoise")

    used = jnp.asarray(~inputs["cond_mask"])
    for name, mask in (
        ("decoder_forward", jnp.ones_like(used)),
        ("forward_dec", jnp.ones_like(used)),
        ("decoder_forward_cond_mask", used),
    ):
        found = denoise(noised, jnp.asarray(inputs["timesteps"]), mask)
        np.testing.assert_allclose(found, channels_last(outputs[name]), **TOLERANCE, err_msg=name)
    alpha = jnp.asarray(module.alphas)[inputs["timesteps"]]
    clean, noise = channels_last(inputs["x"]), channels_last(inputs["noise"])
    for name, found in (
        ("noised", diffusion.add_noise(clean, noise, alpha)),
        ("velocity", diffusion.velocity(clean, noise, alpha)),
    ):
        np.testing.assert_allclose(found, channels_last(outputs[name]), **TOLERANCE)
    for run in files["runs"]["runs"]:
        check_run(module, run, inputs, outputs, lambda x, t: denoise(x, t, jnp.ones_like(used)))


def check_run(module, run, inputs, outputs, denoise):
    """Replay a run step by step with one compiled decoder."""
    tag, sampler = run["tag"], SAMPLERS[run["scheduler"]]
    options = run["kwargs"]
    clip = (-1.0, 1.0) if options["thresholding"] or options["clip_sample"] else None
    plan = diffusion_sampling.plan(
        sampler, module.alphas, run["steps"], spacing=run["mode"], compat="ml-4m"
    )
    assert plan.timestep.tolist() == outputs[f"{tag}/timesteps"].tolist()
    fresh = [channels_last(x) for x in inputs.get(f"{tag}/variance_noise", [])]
    noise = channels_last(inputs[f"{tag}/init_noise"])
    state = diffusion_sampling.start(sampler, noise)
    for i in range(len(plan.timestep)):
        row = jax.tree.map(lambda leaf, i=i: leaf[i], plan)
        answer = denoise(state.noised, jnp.full(len(noise), row.timestep))
        state = diffusion_sampling.step(
            sampler, state, row, answer, lambda i=i: fresh[i] if i < len(fresh) else 0.0,
            prediction=module.prediction, clip=clip, compat="ml-4m",
        )  # fmt: skip
        if i < 2:
            expected = channels_last(outputs[f"{tag}/model_outputs"][i])
            np.testing.assert_allclose(answer, expected, **TOLERANCE, err_msg=tag)
            expected = channels_last(outputs[f"{tag}/prev_samples"][i])
            np.testing.assert_allclose(state.noised, expected, **TOLERANCE, err_msg=tag)
    expected = channels_last(outputs[f"{tag}/image"])
    np.testing.assert_allclose(state.noised, expected, **TOLERANCE, err_msg=tag)


@pytest.mark.parametrize("name", divae_cases.CONFIGS)
def test_drawn_weights_give_the_numbers_that_were_recorded_at_parity(name):
    expected = load_file(golden_cases.shipped("divae") / f"{name}.safetensors")
    for key, found in divae_cases.answers(name).items():
        np.testing.assert_allclose(found, expected[key], **TOLERANCE, err_msg=key)


@pytest.mark.parametrize(
    ("fields", "millions"), [({}, 286.74), ({"n_channels": 1, "codebook_size": 8192}, 286.20)]
)
def test_published_models_have_their_number_of_parameters(fields, millions):
    family, arguments = tokenizer_config.arguments_of({**RGB, **fields})
    params = base.abstract_variables(base.build(family, arguments))["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(("decoder", "count"), [("unet_patched", 604), ("uvit_b_p4_f16", 492)])
def test_published_models_have_their_number_of_tensors(decoder, count):
    module = base.build(*tokenizer_config.arguments_of({**RGB, "dec_type": decoder}))
    names = [n for link in tokenizers.links(module) for n in (*link.names, *link.aliases)]
    assert len(names) == len(set(names))
    assert len(names) + len(divae.derived_tensors(module.decoder)) + 1 == count  # encoder.pos_emb


@pytest.mark.parametrize("fields", [{"long_skip": True}, {"conditioning": "xattn"}])
def test_variants_without_published_weights_go_out_and_come_back(fields):
    decoder = {
        "channels": (32, 32), "blocks_per_level": 1, "dim": 16, "depth": 3, "num_heads": 2,
        "grid": 4, **fields,
    }  # fmt: skip
    arguments = {
        "signal": {"num_channels": 1}, "image_size": 32, "patch_size": 16, "num_codes": 4,
        "latent_dim": 2, "encoder": {"dim": 8, "depth": 1, "num_heads": 1}, "decoder": decoder,
    }  # fmt: skip
    module = base.build("divae", arguments)
    variables = drawn.variables(base.abstract_variables(module))
    tensors = tokenizers.export_tensors(module, variables)
    _, back, _ = tokenizers.import_tensors("divae", arguments, tensors)
    jax.tree.map(np.testing.assert_array_equal, back, jax.device_get(variables))


def test_sampling_is_corrected_unless_the_published_pipeline_is_asked_for():
    config = {**RGB, "scheduler": "ddpm", "thresholding": True}
    _, corrected = tokenizer_config.arguments_of(config)
    _, published = tokenizer_config.arguments_of(config, compat="ml-4m")
    assert (corrected["sampler"], corrected.get("clip"), corrected.get("compat")) == (
        "ddim", None, None,
    )  # fmt: skip
    assert (published["sampler"], published["clip"], published["compat"]) == (
        "ddpm", (-1.0, 1.0), "ml-4m",
    )  # fmt: skip


def test_bounds_on_kept_codes_become_bounds_on_lost_ones():
    config = {**RGB, "cls_free_guidance_dropout": 0.1, "masked_cfg": True, "masked_cfg_low": 20}
    _, arguments = tokenizer_config.arguments_of(config)
    assert arguments["condition_dropout_tokens"] == (0, 176)


def test_folded_pixels_are_reordered_and_back():
    published = np.arange(8)  # 2 channels of 2 x 2 pixels, channel by channel
    ours = linking.pixels_first(published, 2)
    assert ours.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    np.testing.assert_array_equal(linking.channels_first(ours, 2), published)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dec_type": "unet_huge"}, "diffusion decoder 'unet_huge', known"),
        ({"prediction_type": "flow"}, "prediction_type 'flow', allowed"),
    ],
)
def test_unknown_decoders_and_predictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tokenizer_config.arguments_of({**RGB, **fields})


def test_presets_with_unknown_fields_are_refused():
    for field, message in (({"width": 3}, "unknown field 'width'"), ({"mid_mlp_ratio": 2}, "4")):
        with pytest.raises(ValueError, match=message):
            divae_config.arguments_of(
                {"dec_type": "uvit_x"}, num_tokens=4, presets={"uvit_x": field}
            )


def test_a_second_name_of_a_tensor_must_agree_with_the_first():
    _, arguments = tokenizer_config.arguments_of(
        divae_cases.CONFIGS["uvit"], presets=divae_cases.PRESETS
    )
    tensors = divae_cases.published(arguments)
    tensors["decoder.downsample_mid.Conv2d_0.bias"] = np.ones(32, np.float32)
    with pytest.raises(ValueError, match="bias' differs from"):
        tokenizers.import_tensors("divae", arguments, tensors)


def test_a_module_without_a_published_form_is_refused():
    with pytest.raises(ValueError, match="no published form of a PatchMLPDecoder"):
        divae.decoder_links(mlp.PatchMLPDecoder(patch_size=1, dim=1, depth=1, num_channels=1))
