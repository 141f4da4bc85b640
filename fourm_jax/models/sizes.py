"""Named sizes of the trunk: arguments of `FourM` (docs/published.md#sizes)."""

from collections.abc import Mapping
from typing import Any

from fourm_jax.utils import errors

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"dim": 384, "encoder_depth": 6, "decoder_depth": 6, "num_heads": 6},
    "small": {"dim": 512, "encoder_depth": 8, "decoder_depth": 8, "num_heads": 8},
    "base": {"dim": 768, "encoder_depth": 12, "decoder_depth": 12, "num_heads": 12},
    "large": {"dim": 1024, "encoder_depth": 24, "decoder_depth": 24, "num_heads": 16},
    "xlarge": {"dim": 2048, "encoder_depth": 24, "decoder_depth": 24, "num_heads": 32},
}


def get(name: str) -> dict[str, Any]:
    """Width, depths and heads of a published size.

    The MLP keeps the published width (2730 at "large", 5461 at "xlarge") unless `mlp_dim` says
    otherwise; multiples of 128 (2816, 5504) are faster where no weights are imported.

    Raises:
      ValueError: unknown name.
    """
    if name not in SIZES:
        raise ValueError(errors.unknown_value("size", name, SIZES))
    return dict(SIZES[name])
