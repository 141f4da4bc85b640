"""How far generated pictures lie from true ones, by features of our own encoder.

The numbers are comparable only between pictures that one and the same encoder has seen.
"""

import dataclasses
from typing import Any

import numpy as np

from fourm_jax.evals import any_to_any, evaluator
from fourm_jax.evals.any_to_any import BATCH
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.measures import feature_distances
from fourm_jax.generate import job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frechet:
    """Fréchet and kernel distance of generated and true pictures; options as of `make`.

    The tokenizer bound is the distance of true tokens, decoded; the constant that of the mean
    training picture, as often as there are records.
    """

    condition: tuple[str, ...]
    target: str
    encoder: str
    features: str
    depth: int
    num_train: int
    seed: int

    def check(self, context: Context) -> None:
        """Refuse modalities and features that there are not, and records without raw fields.

        Raises:
          ValueError: names what is wrong.
        """
        job.check_names(context.generator.parts, self.condition, (self.target,))
        context.generator.tokenizer(self.target)
        evaluator.check_features(context, (self.encoder,), self.features)
        context.held_out(1)

    def __call__(self, context: Context) -> Findings:
        """Generate, encode, compare."""
        generator = context.generator
        data = context.held_out(self.num_train)
        spec = generator.spec(self.target)
        given = {name: data.tokens[name] for name in self.condition}
        made = generator.generate(given, [self.target], seed=self.seed, batch_size=BATCH)

        def encode(pictures: np.ndarray) -> np.ndarray:
            return generator.features(
                {self.encoder: pictures}, self.features, depth=self.depth, batch_size=BATCH
            )

        true = encode(np.asarray(data.truth[spec.source]))
        shown = {
            "model": encode(made.decoded[self.target].raw),
            "tokenizer_bound": encode(any_to_any.bound(generator, data, spec)),
            "constant": encode(_usual(np.asarray(data.train[spec.source]), len(true))),
        }
        entries = []
        for metric, distance in (
            ("frechet_distance", feature_distances.frechet),
            ("kernel_distance", feature_distances.kernel),
        ):
            found: dict[str, Any] = {
                name: distance(vectors, true) for name, vectors in shown.items()
            }
            value = found.pop("model")
            entries.append(
                evaluator.entry(metric, value, len(true), higher_is_better=False, **found)
            )
        return Findings(
            tasks={
                f"{'+'.join(self.condition)}->{self.target}": {**entries[0], "also": entries[1:]}
            }
        )


def make(
    condition: tuple[str, ...] = ("caption",),
    target: str = "tok_rgb",
    encoder: str = "rgb",
    features: str = "encoder",
    depth: int = 0,
    num_train: int = 2_048,
    seed: int = 0,
) -> Frechet:
    """Return the evaluator.

    Args:
      condition, target: what is generated from what.
      encoder: input through which the trunk sees both kinds of pictures.
      features, depth: of `generate.features`.
      num_train: training pictures behind the constant.
    """
    return Frechet(
        condition=condition,
        target=target,
        encoder=encoder,
        features=features,
        depth=depth,
        num_train=num_train,
        seed=seed,
    )


def _usual(pictures: np.ndarray, count: int) -> np.ndarray:
    """The mean picture, `count` times."""
    mean = np.rint(pictures.mean(axis=0)).astype(pictures.dtype)
    return np.repeat(mean[None], count, axis=0)
