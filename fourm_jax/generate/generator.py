"""The short way: raw conditions in, raw signals of any other modality out."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.generate import chain, parallel, results, schedule
from fourm_jax.generate import conditions as condition_entries
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.results import DecodedResults
from fourm_jax.generate.schedule import Step, Target
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.models.fourm import FourM
from fourm_jax.tokenizers.base import SequenceTokenizer, Tokenizer, Tokenizers
from fourm_jax.tokenizers.missing import missing
from fourm_jax.utils import notebook
from fourm_jax.utils.errors import unknown_value

NUM_SHOWN = 6  # rows of a result in a notebook


@dataclasses.dataclass(frozen=True)
class Generated:
    """Results by modality, targets in the order of decoding.

    Attributes:
      ids: int32 [b, l].
      known: bool [b, l], which slots hold a token (sequences end before their width).
      decoded: raw signals and typed texts, where the tokenizer is at hand; another one says which
        tokenizer it lacks.
    """

    ids: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    decoded: DecodedResults

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


class Generator:
    """A trunk with its tokenizers."""

    def __init__(self, model: FourM, params: Any, tokenizers: Tokenizers | None = None) -> None:
        """Put them together.

        Args:
          model, params: the trunk.
          tokenizers: by `ModalitySpec.tokenizer`, that of the texts among them; a modality whose
            tokenizer is missing is not decoded. All sequences share one vocabulary.

        Raises:
          ValueError: a tokenizer of another kind than the modality, or whose vocabulary or grid is
            not the modality's.
        """
        self.model, self.params = model, params
        self.tokenizers: Tokenizers = dict(tokenizers or {})
        self.vocabulary = PUBLISHED
        for spec in model.modalities:
            if spec.tokenizer in self.tokenizers and spec.is_token:
                tokenizer = self.tokenizers[spec.tokenizer]
                _check_tokenizer(spec, tokenizer)
                if isinstance(tokenizer, SequenceTokenizer):
                    self.vocabulary = tokenizer.vocabulary

    def spec(self, name: str) -> ModalitySpec:
        """Spec of a modality of this model."""
        return self.model.modalities[states.index_of(self.model.modalities, name)]

    def tokenizer(self, name: str) -> Tokenizer:
        """Tokenizer of a grid or global modality.

        Raises:
          ValueError: it is not at hand, or the modality is of another kind.
        """
        tokenizer = self.tokenizers.get(self.spec(name).tokenizer)
        if not isinstance(tokenizer, Tokenizer):
            raise ValueError(
                f"modality {name!r}: no tokenizer {self.spec(name).tokenizer!r} for raw signals "
                f"among {sorted(self.tokenizers)}"
            )
        return tokenizer

    def start(self, conditions: Mapping[str, Any], targets: Iterable[str]) -> states.State:
        """Encode conditions (see `conditions.encode`) and lay out the targets.

        Raises:
          ValueError: a condition that the model does not read, a target that it does not predict,
            or anything that `conditions.encode` refuses.
        """
        self._check_names(conditions, targets)
        entries = {
            name: condition_entries.encode(self.spec(name), value, self.tokenizers)
            for name, value in conditions.items()
        }
        return states.create(
            entries, targets, specs=self.model.modalities, vocabulary=self.vocabulary
        )

    def generate(
        self,
        conditions: Mapping[str, Any],
        targets: Sequence[str] | str = "all",
        *,
        plan: Sequence[Target] | Sequence[Step] | None = None,
        num_steps: int = 8,
        guidance: float = 1.0,
        sampling: Sampling | None = None,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 64,
        show_progress: bool = False,
    ) -> Generated:
        """Generate every target from the conditions, one after the other.

        Args:
          conditions: by modality, see `conditions.encode`; a target among them is completed.
          targets: names, or "all" that the model predicts and that are not given.
          plan: how; default: `default_plan` with `num_steps` and `guidance`.
          sampling: default: nucleus of 0.8, as in the published demo.
          seed: row i of the conditions draws from stream (seed, i), whatever the batch size.
          num_samples: results per row of the conditions, next to each other; the first is the one
            of a single sample.
          batch_size: rows on the device at once.
          show_progress: draw a bar over the targets.
        """
        if targets == "all":
            targets = [name for name in self.model.outputs if name not in conditions]
        self._check_names(conditions, targets)
        targets = sorted(targets, key=lambda name: self.spec(name).decoding_order)
        state = self.start(conditions, targets)
        if plan is None:
            plan = self.default_plan(state, targets, num_steps=num_steps, guidance=guidance)
        steps = [step for step in plan if isinstance(step, Step)]
        if len(steps) < len(plan):
            chosen = [target for target in plan if isinstance(target, Target)]
            steps = list(schedule.build_chained_schedule(conditions, chosen))
        sampling = sampling or Sampling(top_p=0.8)
        keys = chain.row_keys(seed, np.arange(state.batch_size), num_samples)
        state = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_samples, axis=0), state)
        parts = []
        for rows, block in _blocks(state, batch_size):
            done = chain.run(
                self.model,
                self.params,
                block,
                steps,
                keys=keys[rows],
                sampling=sampling,
                vocabulary=self.vocabulary,
                show_progress=show_progress,
            )
            parts.append(
                jax.device_get({name: (done.ids[name], done.known[name]) for name in targets})
            )
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: state.batch_size], *parts)
        return self._results({name: joined[name] for name in targets})

    def default_plan(
        self, state: states.State, targets: Iterable[str], *, num_steps: int, guidance: float
    ) -> list[Target]:
        """Grids by ROAR in `num_steps`, vectors in one pass, sequences token by token.

        Source: docs/published.md#generation.
        """
        plan = []
        for name in targets:
            spec, num_open = self.spec(name), int((~state.known[name]).sum(axis=1).max())
            target = Target(name=name, scheme="autoregressive", temperature=0.3, guidance=guidance)
            if spec.kind != "sequence":
                steps = 1 if spec.kind == "global" else min(num_steps, num_open)
                target = dataclasses.replace(
                    target, scheme="roar", num_tokens=num_open, num_steps=steps, temperature=0.5
                )
            if spec.kind == "sequence" or num_open:
                plan.append(target)
        return plan

    def predict(
        self, conditions: Mapping[str, Any], targets: Sequence[str], *, batch_size: int = 64
    ) -> dict[str, np.ndarray]:
        """Probabilities [b, l, V] of grid and global targets from one pass of the encoder.

        Equal to predicting each target alone from the conditions that are no targets
        (`generate.parallel.predict`).

        Raises:
          ValueError: a sequence among the targets, or anything that `start` refuses.
        """
        given = {name: value for name, value in conditions.items() if name not in targets}
        state = self.start(given, targets)
        for name in targets:
            if self.spec(name).kind == "sequence":
                raise ValueError(f"target {name!r} is a sequence, allowed: grid and global targets")
        parts = [
            jax.device_get(parallel.predict(self.model, self.params, block, targets))
            for _, block in _blocks(state, batch_size)
        ]
        return {
            name: np.concatenate([part[name] for part in parts])[: state.batch_size]
            for name in targets
        }

    def ensemble(
        self, conditions: Mapping[str, Any], target: str, *, num_samples: int, **options: Any
    ) -> np.ndarray:
        """Raw signal of one target from several samples per row, all in one batch.

        The mean of continuous signals, in their own units and dtype; of others the value that most
        samples have.

        Args:
          options: further arguments of `generate`.

        Raises:
          ValueError: the target has no tokenizer at hand, or anything that `generate` refuses.
        """
        signal = self.tokenizer(target).signal
        done = self.generate(conditions, [target], num_samples=num_samples, **options)
        return results.combine(done.decoded[target].raw, num_samples, signal)

    def _check_names(self, conditions: Iterable[str], targets: Iterable[str]) -> None:
        for name in conditions:
            if name not in self.model.inputs:
                raise ValueError(unknown_value("condition", name, self.model.inputs))
        for name in targets:
            if name not in self.model.outputs:
                raise ValueError(unknown_value("target", name, self.model.outputs))

    def _results(self, tokens: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Generated:
        decoded = {
            name: results.decode(self.spec(name), ids, known, self.tokenizers)
            for name, (ids, known) in tokens.items()
        }
        return Generated(
            ids={name: ids for name, (ids, _) in tokens.items()},
            known={name: known for name, (_, known) in tokens.items()},
            decoded=results.DecodedResults(
                {name: value for name, value in decoded.items() if value is not None},
                {
                    name: missing(self.spec(name), self.tokenizers)
                    for name, value in decoded.items()
                    if value is None
                },
            ),
        )


def _blocks(state: states.State, batch_size: int) -> Iterator[tuple[np.ndarray, states.State]]:
    """Row numbers and states of equal size; the last one repeats its last row."""
    size = min(batch_size, state.batch_size)
    for start in range(0, state.batch_size, size):
        rows = np.minimum(np.arange(start, start + size), state.batch_size - 1)
        yield rows, jax.tree.map(lambda leaf, rows=rows: leaf[rows], state)


def _check_tokenizer(spec: ModalitySpec, tokenizer: Tokenizer | SequenceTokenizer) -> None:
    """The codes of a global vector are tokens of their own, those of a grid share positions."""
    if (spec.kind == "sequence") != isinstance(tokenizer, SequenceTokenizer):
        raise ValueError(
            f"tokenizer {spec.tokenizer!r} is a {type(tokenizer).__name__}: not for "
            f"{spec.kind} {spec.name!r}"
        )
    if isinstance(tokenizer, SequenceTokenizer):
        return
    card = tokenizer.card
    num_tokens = card.grid[0] * card.grid[1] * card.codes_per_position
    if card.vocab_size > spec.vocab_size or num_tokens != spec.num_tokens:
        raise ValueError(
            f"tokenizer {card.name!r} makes {num_tokens} tokens of {card.vocab_size} ids, "
            f"modality {spec.name!r} has {spec.num_tokens} of {spec.vocab_size}"
        )
