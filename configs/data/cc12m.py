"""CC12M with the published pseudo labels, imported: what each modality reads and how it masks.

Written from the published layout, tars or folders, one per modality (texts become ids on the way):

python -m experiments.import_webdataset --input=CC12M/train --split=train --output=data/cc12m \
    --text_tokenizer=FILE --num_workers=16 --modalities=rgb@224,tok_rgb@224,tok_depth@224,\
tok_normal@224,tok_semseg@224,tok_clip@224,caption,det
"""

import ml_collections

from configs import mixtures
from fourm_jax.modalities import registry
from fourm_jax.utils import errors

PICTURE = "rgb"  # the field of the whole picture, whatever pixels modality is cut from it
# The modalities of each published model, and its masking.
MODELS = {
    "mod7": (registry.MOD7_IN, mixtures.mod7_capbias),
    "mod21": (registry.MOD21_IN, mixtures.mod21),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; `arg` is "mod7" or "mod21", then the folder: "mod21=data/cc12m"."""
    model, _, directory = (arg or "mod7").partition("=")
    if model not in MODELS:
        raise ValueError(errors.unknown_value("model", model, MODELS))
    names, mixture = MODELS[model]
    specs = registry.resolve("fourm", names)
    config = ml_collections.ConfigDict()
    config.name = "cc12m"
    config.source = "token_shards"
    config.arguments = {"directory": directory or "data/cc12m"}
    config.fields = {spec.name: PICTURE if spec.kind == "pixels" else spec.name for spec in specs}
    config.weight = 1.0
    config.mixture = mixture()
    return config
