"""Labeler: depth estimated from the picture."""

import numpy as np

from fourm_jax.labelers import models
from fourm_jax.labelers.base import Labeler, Output

METRIC = ("glpn", "zoedepth", "depth_pro")  # model types that estimate metres


def make_labeler(*, model: str) -> Labeler:
    """Make `depth` float32, always larger where farther.

    Metres where the model estimates metres. Others (MiDaS, DPT, Depth Anything) estimate inverse
    depth of unknown scale and offset; of these 1 - (d - min) / (max - min) is kept: 0 at the
    nearest point of the picture, 1 at the farthest, linear in inverse depth.

    Raises:
      ValueError: see `labelers.models.load`.
    """
    loaded = models.load("depth", "AutoModelForDepthEstimation", model)
    config = loaded.net.config
    kind = getattr(config, "depth_estimation_type", "relative")
    metric = kind == "metric" or config.model_type in METRIC

    def run(images):
        outputs = loaded.net(**loaded.prepared(images))
        made = loaded.processor.post_process_depth_estimation(
            outputs, target_sizes=models.sizes(images)
        )
        return [{"depth": _depth(models.array(m["predicted_depth"], "float32"))} for m in made]

    def _depth(found):
        if metric:
            return np.maximum(found, 0)
        span = found.max() - found.min()
        return 1 - (found - found.min()) / np.maximum(span, np.finfo(np.float32).tiny)

    return Labeler(
        name="depth",
        inputs=("rgb",),
        outputs={"depth": Output(axes="hw", dtype="float32", low=0, high=np.inf if metric else 1)},
        label=models.by_size(loaded, run),
        settings={**loaded.settings, "metric": metric},
    )
