"""Classes of records by a linear classifier of frozen features (scikit-learn's)."""

import dataclasses

import numpy as np

from fourm_jax.evals import bootstrap, evaluator
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.measures import neighbours
from fourm_jax.utils import extras


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Top-1 of a logistic regression on standardized features; options as of `make`."""

    condition: tuple[str, ...]
    features: str
    label: str
    strength: float
    num_train: int

    def check(self, context: Context) -> None:
        """Refuse features that there are not, labels of other classes, a single class.

        Raises:
          ValueError: names what is wrong, or scikit-learn where it is missing.
        """
        extras.require("sklearn.linear_model", extra="probe", who="linear_probe")
        evaluator.check_features(context, self.condition, self.features)
        evaluator.check_labels(context, self.label, self.num_train)
        classes = set(evaluator.labels(context.read("train", self.num_train), self.label).tolist())
        if len(classes) < 2:
            raise ValueError(f"linear_probe: all training records are of the class {classes}")

    def __call__(self, context: Context) -> Findings:
        """Fit on training records, count on the others."""
        linear = extras.require("sklearn.linear_model", extra="probe", who="linear_probe")
        train, test = context.read("train", self.num_train), context.test()
        own, labels, _ = evaluator.class_indices(
            evaluator.labels(train, self.label), evaluator.labels(test, self.label)
        )
        vectors = [
            context.generator.features(
                {name: one.tokens[name] for name in self.condition}, self.features
            )
            for one in (train, test)
        ]
        mean, std = vectors[0].mean(axis=0), vectors[0].std(axis=0) + 1e-6
        model = linear.LogisticRegression(C=self.strength, max_iter=1_000)
        model.fit((vectors[0] - mean) / std, own)
        right = model.predict((vectors[1] - mean) / std) == labels
        found = evaluator.entry(
            "top1",
            float(right.mean()),
            len(labels),
            higher_is_better=True,
            constant=float(np.mean(labels == neighbours.majority(own))),
            interval=bootstrap.of_mean(right),
        )
        return Findings(tasks={f"{'+'.join(self.condition)}->{self.label}": found})


def make(
    condition: tuple[str, ...] = ("rgb",),
    features: str = "encoder",
    label: str = "label",
    strength: float = 1.0,
    num_train: int = 2_048,
) -> LinearProbe:
    """Return the evaluator.

    Args:
      condition, features, label, num_train: as of `evals.evaluators.knn.make`.
      strength: inverse of the penalty on weights (C of scikit-learn).
    """
    return LinearProbe(
        condition=condition,
        features=features,
        label=label,
        strength=strength,
        num_train=num_train,
    )
