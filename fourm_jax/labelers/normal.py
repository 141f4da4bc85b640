"""Labeler: surface normals estimated from the picture.

No model class of the library transformers is made for normals. This takes a dense predictor of
three channels (a semantic segmentation class with three labels, such as DPT with another head).
"""

from fourm_jax.labelers import models
from fourm_jax.labelers.base import Labeler, Output


def make_labeler(*, model: str) -> Labeler:
    """Make `normal` float32 unit vectors: x to the right, y up, z towards the viewer, which is how
    the model's three outputs are read, whatever their length.

    Raises:
      ValueError: see `labelers.models.load`; a model with another number of outputs.
    """
    loaded = models.load("normal", "AutoModelForSemanticSegmentation", model)
    count = loaded.net.config.num_labels
    if count != 3:
        raise ValueError(f"labeler 'normal', model {model}: {count} outputs per pixel, expected 3")
    functional = loaded.torch.nn.functional

    def run(images):
        logits = loaded.net(**loaded.prepared(images)).logits
        full = functional.interpolate(logits, images.shape[1:3], mode="bilinear")
        unit = functional.normalize(full.permute(0, 2, 3, 1), dim=-1)
        return [{"normal": normal} for normal in models.array(unit, "float32")]

    return Labeler(
        name="normal",
        inputs=("rgb",),
        outputs={"normal": Output(axes="hwc", dtype="float32", low=-1, high=1, unit=True)},
        label=models.by_size(loaded, run),
        settings=loaded.settings,
    )
