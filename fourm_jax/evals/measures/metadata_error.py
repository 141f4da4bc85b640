"""Error of metadata fields in bins of their text form, read against the medians."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fourm_jax.modalities import metadata_fields
from fourm_jax.tokenizers.signal import Signal

Values = Mapping[str, float]
MISSING = 50  # bins that a missing field counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetadataError:
    """Mean |difference| in bins of the text form over all true fields; a missing one counts 50."""

    metric: str = "mean_bin_error"
    unit: str = "bins"
    higher_is_better: bool = False

    def score(self, predicted: Sequence[Values], truth: Sequence[Values]) -> float:
        """Mean over the fields of the set."""
        errors = []
        for guess, values in zip(predicted, truth, strict=True):
            for name, value in values.items():
                encoding = metadata_fields.FIELDS.named(name).encoding
                bins = [encoding.encode(v) for v in (guess.get(name, np.inf), value) if v < np.inf]
                errors.append(abs(bins[0] - bins[1]) if len(bins) == 2 else MISSING)
        return float(np.mean(errors))

    def constant(self, values: Sequence[Values]) -> dict[str, float]:
        """The median of each field over the records that have it."""
        names = dict.fromkeys(name for value in values for name in value)
        return {name: float(np.median([v[name] for v in values if name in v])) for name in names}


def make(signal: Signal | None) -> MetadataError:
    """Return the measure."""
    del signal
    return MetadataError()
