"""Fine-tune the quickstart's model on labels of scenes.

    python -m experiments.train --workdir=runs/cls \
        --config=configs/finetune/scenes.py:task=cls,init=runs/quickstart,labels=256

Half a minute each on 2 idle CPU cores, counting (600 steps in place of 200) a minute. Labels are
those of scenes that the model has not seen; the measures are of 512 held-out scenes.

| task  | label                               | reads      | head           | measure         |
|-------|-------------------------------------|------------|----------------|-----------------|
| cls   | class of the object that shows most | tok_semseg | attentive_pool | accuracy        |
| seg   | class of every pixel                | tok_semseg | dense_linear   | miou            |
| depth | depth of every pixel, in metres     | tok_depth  | dense_linear   | abs_rel, delta1 |
| pose  | position of that object, in metres  | tok_depth  | regression     | mae             |
| count | number of objects                   | three [1]  | attentive_pool | mae, exact      |

[1] tok_semseg, tok_depth and tok_normal.

A head reads the encoder's features and, beside them, what the decoder makes of every position of an
output that is close to the task: the model has learned much of it already (`decode`; "none": the
encoder alone). `head=dense_convnext` is the published head of maps; on a CPU it costs four times
the encoder.
"""

from typing import Any

import ml_collections

from configs import scenes, trunk
from configs.finetune import transfer
from fourm_jax.models import lora
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

TASKS: dict[str, dict[str, Any]] = {
    "cls": {"problem": "classes", "num_outputs": 6, "head": "attentive_pool"},
    "seg": {"problem": "class_map", "num_outputs": 6, "head": "dense_linear"},
    "depth": {
        "problem": "value_map", "num_outputs": 1, "head": "dense_linear",
        "mean": 5.85, "std": 3.0,
    },
    "pose": {"problem": "values", "num_outputs": 3, "head": "regression", "std": 2.0},
    "count": {"problem": "values", "num_outputs": 1, "head": "attentive_pool", "mean": 2.0},
}  # fmt: skip
HEAD_RATE = {
    "seg": 1e-2,
    "depth": 3e-2,
    "pose": 1e-2,
    "count": 3e-3,
}  # of a fresh head; others: 5e-3
TRUNK_SCALE = {"depth": 0.02, "pose": 0.04, "count": 0.03}  # on that rate; others: 0.1
ADAPTERS_SCALE = {"count": 0.5}  # on that rate; others: 0.3
SCRATCH_RATE = {"count": 1e-3}  # of a whole model; others: 3e-3
# What one glance cannot tell is learned slowly: counting is better with every step up to these.
STEPS = {"count": 600}  # others: 200
# What the decoder is asked for; other tasks: tok_semseg. Objects of one class beside each other
# differ in depth and normals.
DECODE = {
    "depth": "tok_depth",
    "pose": "tok_depth",
    "count": "tok_semseg+tok_depth+tok_normal",
}
# Inputs by name. Depth comes as a fourth channel of the picture ("rgbd") or as the tokens of the
# run's own tokenizer; "think" sees the picture alone and predicts them first. "edge" is a picture
# that the model has never seen: one line.
INPUTS: dict[str, tuple[Any, ...]] = {
    "rgb": ("rgb",),
    "rgbd": ("rgb",),
    "tok_depth": ("rgb", "tok_depth"),
    "think": ("rgb", "tok_depth"),
    "edge": ("rgb", {"name": "edge", "channels": 1}),
}
PICTURES = ("rgb", "rgbd", "edge")  # inputs without tokens
RGBD = ("red", "green", "blue", "depth")
FOLDERS = {"cls": "class_folder", "seg": "mask_folder"}  # sources of a folder of pictures
NUM_SCENES = 1_024  # with labels, at most


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "task=seg,init=runs/quickstart,labels=64,lora=8".

    Arguments: task; init (run folder, or "scratch"); labels (number of labelled scenes or pictures,
    which is `transfer.num_train`; 0: all); inputs ("rgb", "rgbd", "tok_depth", "think", "edge");
    decode (outputs, as tok_depth+tok_normal, or "none"); head (a file of `models.heads`); lora
    (rank of adapters; the trunk itself stays as it is); images (a folder of your own in place of
    scenes: CLASS/NAME.png for cls, images/ and masks/ for seg) with num_classes; mirror (half of
    the pictures, where that changes no label); size (of configs/scenes.py); seed; steps (0: as many
    as the task needs); runlocal.
    """
    args = config_lib.parse_arg(
        arg,
        task="cls",
        init=transfer.SCRATCH,
        labels=256,
        inputs="rgb",
        decode="",
        head="",
        lora=0,
        images="",
        num_classes=6,
        mirror=True,
        size="nano",
        seed=0,
        steps=0,
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
        outputs=outputs(args),
        overrides={"rgb": {"channels": RGBD}} if args.inputs == "rgbd" else {},
        model=trunk.architecture(size, positions="learned", scan_unroll=4),
        labels=labels(args),
        data=data(args),
        optimizer=optimizer(args),
        batch_size=8,
        num_steps=4 if args.runlocal else args.steps or STEPS.get(args.task, 200),
        seed=args.seed,
        log_every=2 if args.runlocal else 50,
    )


def outputs(args: ml_collections.ConfigDict) -> tuple[str, ...]:
    """What the decoder is asked for, beside the features of the encoder."""
    asked = args.decode or DECODE.get(args.task, "tok_semseg")
    return () if asked == "none" else tuple(asked.split("+"))


def optimizer(args: ml_collections.ConfigDict) -> dict[str, Any]:
    """A fresh head learns faster than what is trained already, adapters lie between the two.

    From nothing all learn at one rate, found in the same way: of 1e-3 to 6e-3 on scenes that are in
    no test. Full rates of a trained trunk forget what it knows in the first steps.
    """
    warmup_steps = 2 if args.runlocal else 20
    if args.init == transfer.SCRATCH:
        rate = SCRATCH_RATE.get(args.task, 3e-3)
        return transfer.optimizer(rate, warmup_steps=warmup_steps)
    if args.lora:
        scales = {"^adapters/": ADAPTERS_SCALE.get(args.task, 0.3)}
    else:
        scales = {"^trunk/": TRUNK_SCALE.get(args.task, 0.1)}
    if args.inputs == "rgbd" and not args.lora:  # the new channel starts from zero
        scales = {"contents_rgb/": 0.3, **scales}
    rate = HEAD_RATE.get(args.task, 5e-3)
    return transfer.optimizer(rate, warmup_steps=warmup_steps, scales=scales)


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
        "tokenizers": f"{args.init}/tokenizers" if args.inputs == "tok_depth" else "",
        "label_smoothing": 0.1 if task["problem"] == "classes" else 0.0,
        # tokens cannot be mirrored, nor can a position
        "mirror": args.mirror and args.inputs in PICTURES and args.task != "pose",
        "merge": "concat" if len(INPUTS[args.inputs]) + len(outputs(args)) > 1 else "none",
        "lora_rank": args.lora,
        "lora_pattern": lora.ALL,
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
    fields = {name: name for name in names} | ({"rgb": "rgbd"} if args.inputs == "rgbd" else {})
    return {"name": "labelled", "source": "scenes", "arguments": arguments, "fields": fields}
