"""How well two modalities find each other's records by one kind of features (R@k)."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from fourm_jax.evals import bootstrap, evaluator
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.measures import neighbours

KS = (1, 5, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """R@1, R@5 and R@10 both ways, beside chance; options as of `make`."""

    first: str
    second: str
    features: str

    def check(self, context: Context) -> None:
        """Refuse inputs and features that there are not.

        Raises:
          ValueError: names what is wrong.
        """
        evaluator.check_features(context, (self.first, self.second), self.features)

    def __call__(self, context: Context) -> Findings:
        """Compute the features of each modality alone, and rank."""
        test = context.test()
        vectors = {
            name: context.generator.features({name: test.tokens[name]}, self.features)
            for name in (self.first, self.second)
        }
        tasks = {}
        for one, other in ((self.first, self.second), (self.second, self.first)):
            tasks[f"{one}=>{other}"] = recalls(neighbours.ranks(vectors[one], vectors[other]))
        return Findings(tasks=tasks)


def make(first: str = "caption", second: str = "rgb", features: str = "global") -> Retrieval:
    """Return the evaluator; `features` of `generate.features`, of both modalities."""
    return Retrieval(first=first, second=second, features=features)


def recalls(
    ranks: Int[np.ndarray, "n"], bound: Int[np.ndarray, "n"] | None = None
) -> dict[str, Any]:
    """Entries of R@k: the number of other records before each one's own; chance is the constant.

    Args:
      bound: ranks of the best that the tokenizer allows.
    """
    count, entries = len(ranks), []
    for k in KS:
        others: dict[str, Any] = (
            {} if bound is None else {"tokenizer_bound": neighbours.recall(bound, k)}
        )
        entries.append(
            evaluator.entry(
                f"r@{k}",
                neighbours.recall(ranks, k),
                count,
                higher_is_better=True,
                constant=min(k / count, 1.0),
                interval=bootstrap.of_mean(ranks < k),
                **others,
            )
        )
    return {**entries[0], "also": entries[1:]}
