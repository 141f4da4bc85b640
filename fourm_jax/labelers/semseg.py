"""Labeler: semantic segmentation into the 133 classes of COCO panoptic."""

from fourm_jax.labelers import coco, extras, models
from fourm_jax.labelers.base import Labeler, Output

# Those that predict masks with a class each, from which the processor makes a map.
UNIVERSAL = ("mask2former", "maskformer", "oneformer")


def make_labeler(*, model: str) -> Labeler:
    """Make `semseg` uint8 class ids: 0 no class, c + 1 the c-th of `coco.CLASSES`.

    Raises:
      ValueError: see `labelers.models.load`; a model of other classes.
    """
    transformers = extras.require("transformers", "semseg")
    try:
        kind = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False).model_type
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"labeler 'semseg', model {model}: {reason}") from error
    task = "UniversalSegmentation" if kind in UNIVERSAL else "SemanticSegmentation"
    loaded = models.load("semseg", f"AutoModelFor{task}", model)
    try:
        table = coco.ids_of(loaded.net.config.id2label)
    except ValueError as error:
        raise ValueError(f"labeler 'semseg', model {model}: {error}") from error

    def run(images):
        outputs = loaded.net(**loaded.prepared(images))
        made = loaded.processor.post_process_semantic_segmentation(
            outputs, target_sizes=models.sizes(images)
        )
        return [{"semseg": table[models.array(labels, "int64")]} for labels in made]

    return Labeler(
        name="semseg",
        inputs=("rgb",),
        outputs={"semseg": Output(axes="hw", dtype="uint8", low=0, high=len(coco.CLASSES))},
        label=models.by_size(loaded, run),
        settings=loaded.settings,
    )
