"""Classes of records by the vote of their nearest training records (k 20, temperature 0.07)."""

import dataclasses

import numpy as np

from fourm_jax.evals import bootstrap, evaluator
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.measures import neighbours


@dataclasses.dataclass(frozen=True, kw_only=True)
class KNearest:
    """Top-1 and top-5 of frozen features, beside the most frequent class; options as of `make`."""

    condition: tuple[str, ...]
    features: str
    label: str
    k: int
    temperature: float
    num_train: int

    def check(self, context: Context) -> None:
        """Refuse features that there are not, labels of other classes, too few neighbours.

        Raises:
          ValueError: names what is wrong.
        """
        evaluator.check_features(context, self.condition, self.features)
        evaluator.check_labels(context, self.label, self.num_train, self.k)

    def __call__(self, context: Context) -> Findings:
        """Compute features of both sets and vote."""
        train, test = context.read("train", self.num_train), context.test()
        own, labels, classes = evaluator.class_indices(
            evaluator.labels(train, self.label), evaluator.labels(test, self.label)
        )
        vectors = [
            context.generator.features(
                {name: one.tokens[name] for name in self.condition}, self.features
            )
            for one in (train, test)
        ]
        votes = neighbours.knn(vectors[0], own, vectors[1], k=self.k, temperature=self.temperature)
        votes = np.pad(votes, [(0, 0), (0, len(classes) - votes.shape[1])])
        usual = float(np.mean(labels == neighbours.majority(own)))
        entries = []
        for count in (1, 5):
            if count >= len(classes):
                break
            right = neighbours.top(votes, labels, count)
            entries.append(
                evaluator.entry(
                    f"top{count}",
                    float(right.mean()),
                    len(labels),
                    higher_is_better=True,
                    constant=usual if count == 1 else None,
                    interval=bootstrap.of_mean(right),
                )
            )
        guess = votes.argmax(axis=1)
        shares = {
            name: float(np.mean(guess[labels == number] == number))
            for number, name in enumerate(classes)
            if (labels == number).any()
        }
        task = f"{'+'.join(self.condition)}->{self.label}"
        return Findings(
            tasks={task: {**entries[0], "also": entries[1:]}} if entries else {},
            per_class={f"{task}: share right": shares},
        )


def make(
    condition: tuple[str, ...] = ("rgb",),
    features: str = "encoder",
    label: str = "label",
    k: int = neighbours.K,
    temperature: float = neighbours.TEMPERATURE,
    num_train: int = 2_048,
) -> KNearest:
    """Return the evaluator.

    Args:
      condition: what the features are of.
      features: of `generate.features`.
      label: raw field, or a place in one as "metadata.num_objects".
      num_train: training records that vote.

    Raises:
      ValueError: no temperature above 0.
    """
    if temperature <= 0:
        raise ValueError(f"option temperature={temperature}, must be above 0")
    return KNearest(
        condition=condition,
        features=features,
        label=label,
        k=k,
        temperature=temperature,
        num_train=num_train,
    )
