"""Writes the core cases of the DiVAE that ship (see `experiments.parity.divae`).

python -m tests.convert.divae_cases   # after a wanted change only
"""

import json

import numpy as np
from safetensors.numpy import save_file

from experiments.parity import divae
from tests import golden_cases

SHARED = {
    "enc_type": "vit_micro_enc",
    "n_channels": 3,
    "codebook_size": 32,
    "latent_dim": 16,
    "post_mlp": True,
    "thresholding": True,
}
CONFIGS = {
    "unet": {
        **SHARED,
        "dec_type": "unet_patched_tiny",
        "image_size": 32,
        "patch_size": 8,
        "beta_schedule": "linear",
        "prediction_type": "sample",
    },
    "uvit": {
        **SHARED,
        "dec_type": "uvit_tiny_p4_f16",
        "image_size": 64,
        "patch_size": 16,
        "beta_schedule": "shifted_cosine:0.5",
        "prediction_type": "v_prediction",
    },
}
PRESETS = {
    "vit_micro_enc": {"dim_tokens": 32, "depth": 1, "num_heads": 2},
    "unet_patched_tiny": {
        "patch_size": 4,
        "model_channels": 32,
        "num_res_blocks": 1,
        "attention_resolutions": [2],
        "channel_mult": [1, 1],
    },
    "uvit_tiny_p4_f16": {
        "patch_size": 4,
        "block_out_channels": [32, 32],
        "layers_per_block": 1,
        "downsample_before_mid": True,
        "mid_layers": 2,
        "mid_num_heads": 4,
        "mid_dim": 48,
        "mid_mlp_ratio": 4,
        "mid_qkv_bias": True,
    },
}


def main() -> None:
    folder = golden_cases.shipped("divae")
    for name, config in CONFIGS.items():
        names = {config["enc_type"], config["dec_type"]}
        presets = {key: value for key, value in PRESETS.items() if key in names}
        described = {"config": config, "presets": presets}
        (folder / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n")
        arrays = {k: np.ascontiguousarray(v) for k, v in divae.answers(config, presets).items()}
        save_file(arrays, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
