"""Predicted global features against the true ones: do they find the same records and classes?

The bound is what the true tokens decode to, as everywhere.
"""

import dataclasses
from typing import Any

import numpy as np

from fourm_jax.evals import any_to_any, bootstrap, evaluator
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.evaluators import retrieval
from fourm_jax.evals.measures import neighbours
from fourm_jax.generate import features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """R@k among the true vectors, and kNN over those of training records; options as of `make`."""

    condition: str
    target: str
    label: str
    k: int
    num_train: int

    @property
    def _kind(self) -> str:
        return f"global:{self.target}" if self.target else "global"

    def check(self, context: Context) -> None:
        """Refuse a condition or vector that there is not, and labels of other classes.

        Raises:
          ValueError: names what is wrong.
        """
        evaluator.check_features(context, (self.condition,), self._kind)
        context.held_out(self.num_train)
        if self.label:
            evaluator.check_labels(context, self.label, self.num_train, self.k)

    def __call__(self, context: Context) -> Findings:
        """Predict the vector of every record from the condition."""
        generator = context.generator
        _, spec = features.parse(self._kind, generator.model)
        assert spec is not None
        data, test = context.held_out(self.num_train), context.test()
        given = {self.condition: test.tokens[self.condition]}
        predicted = generator.features(given, f"global:{spec.name}")
        best = np.asarray(any_to_any.bound(generator, data, spec))
        true, train = (np.asarray(one[spec.source]) for one in (data.truth, data.train))
        task = f"{self.condition}->{spec.name}"
        tasks = {
            task: retrieval.recalls(neighbours.ranks(predicted, true), neighbours.ranks(best, true))
        }
        if self.label:
            records = context.read("train", self.num_train)
            own, labels, _ = evaluator.class_indices(
                evaluator.labels(records, self.label), evaluator.labels(test, self.label)
            )
            tasks[f"{task}: {self.label}"] = self._knn(train, own, predicted, best, true, labels)
        return Findings(tasks=tasks)

    def _knn(
        self,
        train: np.ndarray,
        own: np.ndarray,
        predicted: np.ndarray,
        best: np.ndarray,
        true: np.ndarray,
        labels: np.ndarray,
    ) -> dict[str, Any]:
        """Top-1 of predicted, decoded and true vectors among the true ones of training records."""

        def right(vectors: np.ndarray) -> np.ndarray:
            return neighbours.knn(train, own, vectors, k=self.k).argmax(axis=1) == labels

        found = right(predicted)
        return evaluator.entry(
            "top1",
            float(found.mean()),
            len(labels),
            higher_is_better=True,
            tokenizer_bound=float(right(best).mean()),
            constant=float(np.mean(labels == neighbours.majority(own))),
            true_features=float(right(true).mean()),
            interval=bootstrap.of_mean(found),
        )


def make(
    condition: str = "rgb",
    target: str = "",
    label: str = "",
    k: int = neighbours.K,
    num_train: int = 2_048,
) -> Distillation:
    """Return the evaluator.

    Args:
      condition: what the vector is predicted from.
      target: a global modality; "": the only one.
      label: of the classes, as of `evals.evaluators.knn.make`; "": R@k alone.
    """
    return Distillation(condition=condition, target=target, label=label, k=k, num_train=num_train)
