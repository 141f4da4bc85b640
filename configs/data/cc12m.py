"""CC12M with the published pseudo labels, imported: what each modality reads and how it masks.

Written from the published layout, tars or folders, one per modality (texts become ids on the way):

python -m experiments.import_webdataset --input=CC12M/train --split=train --output=data/cc12m \
    --text_tokenizer=FILE --num_workers=16 --modalities=rgb@224,tok_rgb@224,tok_depth@224,\
tok_normal@224,tok_semseg@224,tok_clip@224,caption,det
"""

import ml_collections

from configs import datasets, mixtures
from fourm_jax.modalities import registry
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

PICTURE = "rgb"  # the field of the whole picture, whatever pixels modality is cut from it
# The modalities of each published model, and its masking.
MIXES = {
    "mod7": (registry.MOD7_IN, mixtures.mod7_capbias),
    "mod21": (registry.MOD21_IN, mixtures.mod21),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the data set; arguments: mix ("mod7", "mod21"), data (folder of shards), name, weight.

    Another data set of the same layout has another name.
    """
    args = config_lib.parse_arg(arg, mix="mod7", data="data/cc12m", name="cc12m", weight=1.0)
    return tokens(args.mix, args.data, name=args.name, weight=args.weight)


def tokens(
    mix: str, data: str, *, name: str = "cc12m", weight: float = 1.0
) -> ml_collections.ConfigDict:
    """Return the data set in `data` for one of the published models."""
    if mix not in MIXES:
        raise ValueError(errors.unknown_value("mix", mix, MIXES))
    names, mixture = MIXES[mix]
    fields = {
        spec.name: PICTURE if spec.kind == "pixels" else spec.name
        for spec in registry.resolve("fourm", names)
    }
    return datasets.tokens(name, names, mixture(), data=data, weight=weight, fields=fields)
