"""What a generation returns."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from fourm_jax.generate.results import Decoded, DecodedResults
from fourm_jax.utils import notebook

NUM_SHOWN = 6  # rows of a result in a notebook


@dataclasses.dataclass(frozen=True)
class Generated:
    """Results by modality, targets in the order of decoding.

    Attributes:
      ids: int32 [b, l].
      known: bool [b, l], which slots hold a token (sequences end before their width).
      decoded: raw signals and typed texts, where the tokenizer is at hand; another one says which
        tokenizer it lacks.
      scores: of `Generator.best_of`, how well each row agrees with its condition.
    """

    ids: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    decoded: DecodedResults
    scores: Float[np.ndarray, "b"] | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows: the first rows of every target."""
        rows: dict[str, Any] = {}
        for name, ids in self.ids.items():
            if name in self.decoded:
                one = self.decoded[name]
                rows[name] = list((one.texts or one.raw)[:NUM_SHOWN])
            else:
                rows[name] = f"{ids.shape[1]} ids; {self.decoded.lacking.get(name, '')}"
        count = len(next(iter(self.ids.values()), ()))
        return notebook.table(f"{min(count, NUM_SHOWN)} of {count} rows", rows)

    def rows(self, chosen: Any) -> "Generated":
        """The same of these rows: a slice, or integers."""
        index = np.arange(len(next(iter(self.ids.values()))))[chosen]
        decoded = {
            name: Decoded(
                [one.raw[i] for i in index] if isinstance(one.raw, list) else one.raw[index],
                tuple(one.texts[i] for i in index) if one.texts else (),
                tuple(one.dropped[i] for i in index) if one.dropped else (),
            )
            for name, one in self.decoded.items()
        }
        return Generated(
            ids={name: ids[index] for name, ids in self.ids.items()},
            known={name: known[index] for name, known in self.known.items()},
            decoded=DecodedResults(decoded, self.decoded.lacking),
            scores=None if self.scores is None else self.scores[index],
        )
