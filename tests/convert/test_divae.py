"""Published DiVAEs come in, give the published numbers, and go out bit for bit."""

import math

import jax
import numpy as np
import pytest

from experiments.parity import divae as verify_drawn
from experiments.parity import tokenizers as verify
from fourm_jax.convert import divae, divae_config, linking, tokenizer_config, tokenizers
from fourm_jax.models.backbones import mlp
from fourm_jax.tokenizers import base
from tests import drawn, golden_cases
from tests.convert import divae_cases

RGB = {
    "enc_type": "vit_b_enc",
    "dec_type": "unet_patched",
    "n_channels": 3,
    "codebook_size": 16384,
    "latent_dim": 32,
    "image_size": 224,
    "patch_size": 16,
    "post_mlp": True,
    "prediction_type": "sample",
    "beta_schedule": "linear",
}


@golden_cases.FULL_SET
@pytest.mark.parametrize("name", ["divae_unet", "divae_uvit"])
def test_codes_decoder_and_every_sampling_run_are_the_published_ones(name):
    golden_cases.assert_all_pass(verify.check(golden_cases.directory("tokenizers") / name))


@pytest.mark.parametrize("name", divae_cases.CONFIGS)
def test_drawn_weights_give_the_numbers_that_were_recorded_at_parity(name):
    golden_cases.assert_all_pass(
        verify_drawn.check(golden_cases.shipped("divae") / f"{name}.safetensors")
    )


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
        "channels": (32, 32),
        "blocks_per_level": 1,
        "dim": 16,
        "depth": 3,
        "num_heads": 2,
        "grid": 4,
        **fields,
    }
    arguments = {
        "signal": {"num_channels": 1},
        "image_size": 32,
        "patch_size": 16,
        "num_codes": 4,
        "latent_dim": 2,
        "encoder": {"dim": 8, "depth": 1, "num_heads": 1},
        "decoder": decoder,
    }
    module = base.build("divae", arguments)
    variables = drawn.variables(base.abstract_variables(module))
    tensors = tokenizers.export_tensors(module, variables)
    _, back, _ = tokenizers.import_tensors("divae", arguments, tensors)
    jax.tree.map(np.testing.assert_array_equal, back, jax.device_get(variables))


def test_a_published_tokenizer_samples_as_the_published_pipeline():
    config = {**RGB, "scheduler": "ddpm", "thresholding": True}
    _, arguments = tokenizer_config.arguments_of(config)
    assert arguments["sampler"] == "ddpm"
    assert arguments["clip"] == (-1.0, 1.0)
    assert arguments["as_published"] is True


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
    tensors = verify_drawn.published(arguments)
    tensors["decoder.downsample_mid.Conv2d_0.bias"] = np.ones(32, np.float32)
    with pytest.raises(ValueError, match="bias' differs from"):
        tokenizers.import_tensors("divae", arguments, tensors)


def test_a_module_without_a_published_form_is_refused():
    with pytest.raises(ValueError, match="no published form of a PatchMLPDecoder"):
        divae.decoder_links(mlp.PatchMLPDecoder(patch_size=1, dim=1, depth=1, num_channels=1))
