"""Which digit it is: the encoder of the quickstart's model on digits, or any of data=digits.

    python -m experiments.train --config=configs/finetune/digits.py:init=runs/digits \
        --workdir=runs/which_digit

From the weights of the quickstart with `data=digits`, or "scratch"; half a minute on 2 CPU cores.
"""

import ml_collections

from configs import scenes, trunk
from configs.finetune import transfer
from fourm_jax.utils import config as config_lib


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: init, labels (how many; 0 = all 1,500), lora, runlocal."""
    args = config_lib.parse_arg(arg, init=transfer.SCRATCH, labels=256, lora=0, runlocal=False)
    size = scenes.LOCAL["size"] if args.runlocal else scenes.SIZES["nano"]["size"]
    trained = args.init != transfer.SCRATCH and not args.lora
    return transfer.make(
        init=args.init,
        family="digits",
        inputs=("rgb",),
        model=trunk.architecture(size, positions="learned", scan_unroll=4),
        labels={
            "problem": "classes",
            "num_outputs": 10,
            "head": {"name": "linear"},
            "num_train": 16 if args.runlocal else args.labels,
            "num_test": 16 if args.runlocal else 0,
            "label_smoothing": 0.1,
            "lora_rank": args.lora,
        },
        data={"name": "digits", "source": "digits", "arguments": {}, "fields": {"rgb": "rgb"}},
        optimizer=transfer.optimizer(
            3e-3 if args.lora else 1e-3,
            warmup_steps=2 if args.runlocal else 40,
            layer_decay=0.75 if trained else 1.0,
        ),
        batch_size=8 if args.runlocal else 32,
        num_steps=4 if args.runlocal else 300,
        log_every=2 if args.runlocal else 50,
    )
