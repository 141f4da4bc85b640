"""The published transfers of an encoder (arXiv:2406.09406, tables 2 and 8 to 10), and your data.

    python -m experiments.train --config=configs/finetune/published.py:recipe=ade20k,init=RUN \
        --workdir=runs/ade20k

| recipe   | data                            | head           | pixels | epochs |
|----------|---------------------------------|----------------|--------|--------|
| imagenet | TFDS imagenet2012               | linear         | 224    | 20     |
| ade20k   | TFDS scene_parse150             | dense_convnext | 512    | 64     |
| nyuv2    | TFDS nyu_depth_v2               | dense_convnext | 256    | 17     |
| coco     | TFDS coco/2017_panoptic         | dense_convnext | 512    | 25     |
| classes  | images=DIR with CLASS/NAME.jpg  | linear         | 224    | 20     |
| masks    | images=DIR with images/, masks/ | dense_convnext | 224    | 64     |

`classes` and `masks` take dataset=NAME of any prepared TFDS data set in place of a folder, whose
pictures are its feature "image" and whose labels are label=FEATURE; held_out names its other split.

Epochs, pixels, drop path (0.1; 0.2 at size=large, 0.4 at xlarge), layer-wise decay (0.75; 0.85),
mixup 0.1 and cutmix 1.0 are the published ones. Those of nyuv2 are 1,000 of its 795 labelled
frames, here as many of the 47,584 that TFDS has. Rates and batches are ours, and so is the
augmentation: none but mixup and cutmix; ImageNet is learned without ImageNet-21k in between.
`coco` learns the class of every pixel; the published boxes and instances need a detector. No run of
these is recorded yet. `runlocal` takes a few steps of a tiny model on random data.
"""

from typing import Any

import ml_collections

from configs import trunk
from configs.finetune import transfer
from fourm_jax.models import sizes
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

PICTURE = "rgb@224"
PATCH = 16
# Drop path and layer-wise decay by size.
BY_SIZE = {"base": (0.1, 0.75), "large": (0.2, 0.85), "xlarge": (0.4, 0.85)}
CLASSES: dict[str, Any] = {
    "problem": "classes",
    "head": {"name": "linear"},
    "mixup": 0.1,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
}
DENSE_HEAD = {"name": "dense_convnext", "dim": 768, "depth": 4}
LOCAL_HEAD = {"name": "dense_convnext", "dim": 16, "depth": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "imagenet": {
        "labels": {**CLASSES, "num_outputs": 1_000},
        "tfds": ("imagenet2012", {"label": ("array", "label")}, "validation"),
        "size": 224, "num_records": 1_281_167, "epochs": 20, "batch_size": 1_024, "lr": 1e-3,
    },
    "ade20k": {
        # 0 is what has no name; it is learned as a class of its own.
        "labels": {
            "problem": "class_map", "num_outputs": 151, "head": DENSE_HEAD, "field": "semseg",
        },
        "tfds": ("scene_parse150", {"semseg": ("labels", "annotation")}, "test"),
        "size": 512, "num_records": 20_210, "epochs": 64, "batch_size": 64, "lr": 2e-4,
    },
    "nyuv2": {
        "labels": {
            "problem": "value_map", "num_outputs": 1, "head": DENSE_HEAD, "field": "depth",
            "mean": 2.7, "std": 1.5,
        },
        "tfds": ("nyu_depth_v2", {"depth": ("depth", "depth")}, "validation"),
        "size": 256, "num_records": 47_584, "epochs": 17, "batch_size": 128, "lr": 1e-4,
    },
    "coco": {
        # 0 is void; it is learned as a class of its own.
        "labels": {
            "problem": "class_map", "num_outputs": 134, "head": DENSE_HEAD, "field": "semseg",
        },
        "tfds": (
            "coco/2017_panoptic",
            {"semseg": ("panoptic_classes", "panoptic_image", "panoptic_objects")},
            "validation",
        ),
        "size": 512, "num_records": 118_287, "epochs": 25, "batch_size": 64, "lr": 2e-4,
    },
    "classes": {
        "labels": CLASSES, "folder": "class_folder",
        "size": 224, "num_records": 10_000, "epochs": 20, "batch_size": 256, "lr": 5e-4,
    },
    "masks": {
        "labels": {"problem": "class_map", "head": DENSE_HEAD}, "folder": "mask_folder",
        "size": 224, "num_records": 10_000, "epochs": 64, "batch_size": 64, "lr": 2e-4,
    },
}  # fmt: skip


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; `arg` is e.g. "recipe=imagenet,init=RUN,size=large,lora=64".

    Arguments: recipe; init (folder or Hub id of a 4M model, or "scratch"); size; lora (rank; the
    encoder itself stays); of "classes" and "masks" num_classes and images (folder), or dataset,
    label and held_out (of TFDS); runlocal.
    """
    args = config_lib.parse_arg(
        arg,
        recipe="imagenet",
        init=transfer.SCRATCH,
        size="base",
        lora=0,
        images="images",
        dataset="",
        label="label",
        held_out="test",
        num_classes=2,
        runlocal=False,
    )
    for what, name, known in (("recipe", args.recipe, RECIPES), ("size", args.size, BY_SIZE)):
        if name not in known:
            raise ValueError(errors.unknown_value(what, name, known))
    recipe = RECIPES[args.recipe]
    drop_path, layer_decay = BY_SIZE[args.size]
    local = {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2}
    size = local if args.runlocal else sizes.get(args.size)
    side = 2 if args.runlocal else recipe["size"] // PATCH
    labels = {"num_outputs": args.num_classes, **recipe["labels"], "lora_rank": args.lora}
    if args.runlocal and labels["head"] == DENSE_HEAD:
        labels["head"] = LOCAL_HEAD
    num_steps = recipe["epochs"] * recipe["num_records"] // recipe["batch_size"]
    trained = args.init != transfer.SCRATCH and not args.lora
    return transfer.make(
        init=args.init,
        family="fourm",
        inputs=(PICTURE,),
        overrides={PICTURE: {"grid": (side, side)}},
        model={**trunk.architecture(size, positions="sincos"), "drop_path": drop_path},
        labels=labels,
        data=fake(labels, side) if args.runlocal else data(recipe, args),
        optimizer=transfer.optimizer(
            recipe["lr"],
            warmup_steps=2 if args.runlocal else num_steps // 20,
            layer_decay=layer_decay if trained else 1.0,
            ema_decay=0.0 if args.runlocal else 0.9999,
        ),
        batch_size=8 if args.runlocal else recipe["batch_size"],
        num_steps=4 if args.runlocal else num_steps,
        dtype="float32" if args.runlocal else "bfloat16",
        log_every=2 if args.runlocal else 100,
        checkpoint_every=0 if args.runlocal else 2_000,
    )


def data(recipe: dict[str, Any], args: ml_collections.ConfigDict) -> dict[str, Any]:
    """The labelled records of a recipe."""
    arguments: dict[str, Any]
    if "folder" in recipe and not args.dataset:
        source, arguments = recipe["folder"], {"directory": args.images}
    else:
        reader = "array" if recipe["labels"]["problem"] == "classes" else "labels"
        own = (args.dataset, {"label": (reader, args.label)}, args.held_out)
        dataset, fields, held_out = recipe.get("tfds", own)
        source, arguments = "tfds", {"dataset": dataset}
        arguments["fields"] = {"rgb": ("picture", "image"), **fields}
        arguments["splits"] = {"train": "train", "test": held_out}
    arguments["image_size"] = recipe["size"]
    return {
        "name": "labelled",
        "source": source,
        "arguments": arguments,
        "fields": {PICTURE: "rgb"},
    }


def fake(labels: dict[str, Any], side: int) -> dict[str, Any]:
    """Random pictures with random labels."""
    size = (side * PATCH, side * PATCH)
    arguments = {
        "family": "fourm",
        "names": (PICTURE,),
        "overrides": {PICTURE: {"grid": (side, side)}},
        "num_records": 16,
        "label": labels.get("field", "label"),
        "label_size": size if labels["problem"].endswith("map") else (),
        "num_classes": labels["num_outputs"] if labels["problem"].startswith("class") else 0,
    }
    return {"name": "fake", "source": "fake", "arguments": arguments, "fields": {PICTURE: PICTURE}}
