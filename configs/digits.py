"""Any-to-any model of the scanned digits: the scenes' trunk on another data set.

    python -m experiments.quickstart --config=configs/quickstart.py:data=digits --workdir=DIR

trains tokenizers and this trunk (global batch 16, 64 + 48 tokens) in about two
minutes on 2 CPU cores; it then names 96 % of 256 held-out digits right. The trunk alone, once the
token shards are there: python -m experiments.train --config=configs/digits.py --workdir=DIR.
"""

import ml_collections

from configs import scenes
from configs.data import digits as digits_data
from fourm_jax.utils import config as config_lib

INPUTS = digits_data.NAMES
OUTPUTS = digits_data.TARGETS


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: data (folder of token shards), runlocal."""
    args = config_lib.parse_arg(arg, data="runs/digits/data", runlocal=False)
    config = scenes.get_config("size=nano").unlock()
    config.num_steps = 1_000
    config.optimizer.warmup_steps = 100
    config.modalities.update({"family": "digits", "inputs": INPUTS, "outputs": OUTPUTS})
    config.masking.num_targets = 48
    config.data = (digits_data.get_config(args.data),)
    if args.runlocal:
        scenes.runlocal(config)
    return config.lock()
