"""Fine-tune the encoder of the quickstart's model on labels of scenes.

    python -m experiments.train --workdir=runs/cls \
        --config=configs/finetune/scenes.py:task=cls,init=runs/quickstart,labels=256

Half a minute each on 2 idle CPU cores. Labels are those of scenes that the model has not seen; the
measures are of 512 held-out scenes.

| task  | label                                          | head          | measure                |
|-------|------------------------------------------------|---------------|------------------------|
| cls   | class of the object that shows most            | linear        | accuracy               |
| seg   | class of every pixel                           | dense_linear  | miou                   |
| depth | depth of every pixel, in metres                | dense_linear  | abs_rel, delta1        |
| pose  | position of that object, in metres             | regression    | mae                    |
| count | number of objects                              | regression    | mae, exact             |

`head=dense_convnext` is the published head of maps; on a CPU it costs four times the encoder.
"""

from typing import Any

import ml_collections

from configs import scenes, trunk
from configs.finetune import transfer
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

TASKS: dict[str, dict[str, Any]] = {
    "cls": {"problem": "classes", "num_outputs": 6, "head": "linear"},
    "seg": {"problem": "class_map", "num_outputs": 6, "head": "dense_linear"},
    "depth": {
        "problem": "value_map", "num_outputs": 1, "head": "dense_linear",
        "mean": 5.85, "std": 3.0,
    },
    "pose": {"problem": "values", "num_outputs": 3, "head": "regression", "std": 2.0},
    "count": {"problem": "values", "num_outputs": 1, "head": "regression", "mean": 2.0},
}  # fmt: skip
# Inputs by name. Depth comes as the tokens of the run's own tokenizer; "think" sees the picture
# alone and predicts them first. "edge" is a picture that the model has never seen: one line.
INPUTS: dict[str, tuple[Any, ...]] = {
    "rgb": ("rgb",),
    "rgbd": ("rgb", "tok_depth"),
    "think": ("rgb", "tok_depth"),
    "edge": ("rgb", {"name": "edge", "channels": 1}),
}
FOLDERS = {"cls": "class_folder", "seg": "mask_folder"}  # sources of a folder of pictures
NUM_SCENES = 1_024  # with labels, at most


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "task=seg,init=runs/quickstart,labels=64,lora=8".

    Arguments: task; init (run folder, or "scratch"); labels (number of labelled scenes); inputs
    ("rgb", "rgbd", "think", "edge"); head (a file of `models.heads`); lora (rank of adapters; the
    encoder itself stays as it is); images (a folder of your own in place of scenes: CLASS/NAME.png
    for cls, images/ and masks/ for seg) with num_classes; mirror (half of the pictures, where that
    changes no label); size (of configs/scenes.py); seed; steps; runlocal.
    """
    args = config_lib.parse_arg(
        arg,
        task="cls",
        init=transfer.SCRATCH,
        labels=256,
        inputs="rgb",
        head="",
        lora=0,
        images="",
        num_classes=6,
        mirror=True,
        size="nano",
        seed=0,
        steps=200,
        runlocal=False,
    )
    for what, name, known in (("task", args.task, TASKS), ("inputs", args.inputs, INPUTS)):
        if name not in known:
            raise ValueError(errors.unknown_value(what, name, known))
    if args.images and args.task not in FOLDERS:
        raise ValueError(errors.unknown_value("task with images", args.task, FOLDERS))
    if args.size not in scenes.SIZES:
        raise ValueError(errors.unknown_value("size", args.size, scenes.SIZES))
    size = scenes.LOCAL["size"] if args.runlocal else scenes.SIZES[args.size]["size"]
    return transfer.make(
        init=args.init,
        family="scenes",
        inputs=INPUTS[args.inputs],
        model=trunk.architecture(size, positions="learned", scan_unroll=4),
        labels=labels(args),
        data=data(args),
        # Of three blocks all learn at one rate: with a decay of 0.75 maps lose 3 points of mIoU.
        optimizer=transfer.optimizer(
            3e-3 if args.lora else 2e-3 if args.task in ("seg", "depth") else 1e-3,
            warmup_steps=2 if args.runlocal else 40,
        ),
        batch_size=8 if args.runlocal else 16,
        num_steps=4 if args.runlocal else args.steps,
        seed=args.seed,
        log_every=2 if args.runlocal else 50,
    )


def labels(args: ml_collections.ConfigDict) -> dict[str, Any]:
    """What is predicted, and from how many labels."""
    task = TASKS[args.task]
    own = {"num_outputs": args.num_classes} if args.task in FOLDERS else {}
    return {
        **task,
        **own,
        "head": {"name": args.head or task["head"]},
        "num_train": 16 if args.runlocal and not args.images else args.labels,
        "num_test": 0 if args.images else 16 if args.runlocal else 512,
        "tokenizers": f"{args.init}/tokenizers" if args.inputs == "rgbd" else "",
        "label_smoothing": 0.1 if task["problem"] == "classes" else 0.0,
        # tokens cannot be mirrored, nor can a position
        "mirror": args.mirror and args.inputs in ("rgb", "edge") and args.task != "pose",
        "merge": "mean" if len(INPUTS[args.inputs]) > 1 else "none",
        "lora_rank": args.lora,
        "think": ("tok_depth",) if args.inputs == "think" else (),
    }


def data(args: ml_collections.ConfigDict) -> dict[str, Any]:
    """Scenes of a stream of their own, which no model was trained on, or a folder."""
    if args.images:
        return {
            "name": "labelled",
            "source": FOLDERS[args.task],
            "arguments": {"directory": args.images, "image_size": 32, "test_fraction": 0.25},
            "fields": {"rgb": "rgb"},
        }
    arguments = {"num_records": NUM_SCENES, "seed": 1, "label": args.task}
    names = [one if isinstance(one, str) else one["name"] for one in INPUTS[args.inputs]]
    fields = {name: name for name in names}
    return {"name": "labelled", "source": "scenes", "arguments": arguments, "fields": fields}
