"""The published system's own settings of generation, by preset.

    python -m experiments.generate --source=EPFL-VILAB/4M-21_B --conditions=rgb@224=photo.jpg \
        --plan=configs/generate/published.py:preset=rgb_to_all

Presets: rgb_to_all, to_rgb, caption_to_rgb, super_resolution, retrieval; their source is
docs/published.md#generation. What a preset does not name has the defaults of `generate.defaults`.
"""

from typing import Any

import ml_collections

from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

ONE_PASS = {"scheme": "roar", "num_steps": 1, "temperature": 0.01, "guidance": 2.0, "top_p": 0.8}
MAPS = ("depth", "normal", "semseg", "clip", "dinov2", "imagebind", "canny_edge", "sam_edge")
GLOBAL = ("tok_dinov2_global", "tok_imagebind_global")
SMOOTH = {"temperature": 3.0, "temperatures": "onex:0.5:0.5", "guidance": 2.0, "top_p": 0.8}
TEXT = {"temperature": 0.3, "top_p": 0.8}
SHORT_TEXT = {"temperature": 0.1, "top_p": 0.8}
UPSCALE = {"scheme": "maskgit", "num_steps": 8, "tokens": "cosine", "temperature": 1.0}

PRESETS: dict[str, dict[str, Any]] = {
    "rgb_to_all": {
        **{f"tok_{name}@224": ONE_PASS for name in MAPS},
        **{name: {"temperature": 0.01, "guidance": 2.0} for name in GLOBAL},
        "caption": TEXT,
        "det": TEXT,
        "human_poses": SHORT_TEXT,
        "sam_instance": {"temperature": 0.01, "top_p": 0.8},
        "color_palette": SHORT_TEXT,
        "metadata": SHORT_TEXT,
    },
    "to_rgb": {"tok_rgb@224": {"scheme": "roar", "num_steps": 25, **SMOOTH}},
    "caption_to_rgb": {
        "tok_clip@224": {
            "scheme": "roar",
            "num_steps": 49,
            "temperature": 6.0,
            "guidance": 3.0,
            "temperatures": "onex:0.5:0.5",
            "top_p": 0.9,
        },
        "tok_rgb@224": {
            "scheme": "roar",
            "num_steps": 25,
            "temperature": 0.5,
            "guidance": 3.0,
            "temperatures": "constant",
            "top_p": 0.9,
        },
    },
    "super_resolution": {
        f"tok_{name}@448": {**UPSCALE, "temperatures": "constant", "guidance": 2.0}
        for name in ("clip", "depth", "normal", "semseg", "rgb")
    },
    "retrieval": {name: {"scheme": "roar", "temperature": 0.1} for name in GLOBAL},
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return {target: {field of `schedule.Target`: value}}; argument: preset."""
    args = config_lib.parse_arg(arg, preset="rgb_to_all")
    if args.preset not in PRESETS:
        raise ValueError(errors.unknown_value("preset", args.preset, PRESETS))
    return ml_collections.ConfigDict(PRESETS[args.preset]).lock()
