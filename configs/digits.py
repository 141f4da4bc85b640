"""Any-to-any model of the scanned digits: the scenes' trunk on another data set.

    python -m experiments.quickstart --config=configs/quickstart.py:data=digits --workdir=DIR

trains tokenizers and this trunk (global batch 16, 64 + 48 tokens) in about two
minutes on 2 CPU cores; it then names 96 % of 256 held-out digits right. The trunk alone, once the
token shards are there: python -m experiments.train --config=configs/digits.py --workdir=DIR.
"""

import ml_collections

from configs import datasets, scenes, trunk
from configs.data import digits as digits_data
from fourm_jax.utils import config as config_lib

INPUTS = digits_data.NAMES
OUTPUTS = digits_data.TARGETS
CHANGES = {"num_steps": 1_000, "num_targets": 48, "warmup_steps": 100}  # of size nano


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: data (folder of token shards), runlocal."""
    args = config_lib.parse_arg(arg, data="runs/digits/data", runlocal=False)
    data = digits_data.tokens(args.data)
    if args.runlocal:
        mixture = digits_data.mixture()
        data = datasets.fake_tokens("digits", INPUTS, mixture, family="digits", num_records=64)
    return make(data, args.runlocal)


def make(data: ml_collections.ConfigDict, runlocal: bool = False) -> ml_collections.ConfigDict:
    """Return the trunk on `data`."""
    settings = scenes.settings("nano", data, runlocal, **CHANGES)
    return trunk.make(family="digits", inputs=INPUTS, outputs=OUTPUTS, **settings)
