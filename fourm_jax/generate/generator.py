"""The short way: raw conditions in, raw signals of any other modality out."""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from fourm_jax.generate import chain, parallel, results, scoring
from fourm_jax.generate import conditions as condition_entries
from fourm_jax.generate import features as feature_lib
from fourm_jax.generate import job as job_lib
from fourm_jax.generate import state as states
from fourm_jax.generate.ahead import Programs
from fourm_jax.generate.blocks import Compute, Devices
from fourm_jax.generate.generated import Generated
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.guides import Guide
from fourm_jax.generate.job import Job, Parts, Plan
from fourm_jax.generate.state import State
from fourm_jax.generate.trunk import ReadyKernels, looped_on_tpu
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.models.fourm import FourM
from fourm_jax.parallel import sharding
from fourm_jax.tokenizers.base import SequenceTokenizer, Tokenizer, Tokenizers
from fourm_jax.tokenizers.missing import missing
from fourm_jax.utils.errors import unknown_value


class Generator:
    """A trunk with its tokenizers."""

    def __init__(
        self,
        model: FourM,
        params: Any,
        tokenizers: Tokenizers | None = None,
        mesh: Mesh | None = None,
        *,
        is_divided: bool = False,
    ) -> None:
        """Put them together.

        Args:
          model, params: the trunk.
          tokenizers: by `ModalitySpec.tokenizer`, that of the texts among them; a modality whose
            tokenizer is missing is not decoded. All sequences share one vocabulary.
          mesh: devices that share each batch, see `on_mesh`.
          is_divided: processes that make the same calls divide their batches (`parallel.shares`);
            each gets all results, which are those of one process.

        Raises:
          ValueError: a tokenizer of another kind than the modality, or whose vocabulary or grid is
            not the modality's.
        """
        platform = mesh.devices.flat[0].platform if mesh else jax.default_backend()
        self.model, self.params, self.mesh = looped_on_tpu(model, platform), params, mesh
        self.is_divided = is_divided
        self._programs, self._kernels = Programs(), ReadyKernels()
        self.tokenizers: Tokenizers = dict(tokenizers or {})
        self.fit_slots, self.vocabulary = True, PUBLISHED  # see `of_few_programs`
        for spec in model.modalities:
            if spec.tokenizer in self.tokenizers and spec.is_token:
                tokenizer = self.tokenizers[spec.tokenizer]
                job_lib.check_tokenizer(spec, tokenizer)
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

    def on_mesh(self, mesh: Mesh) -> "Generator":
        """The same on other devices (see `parallel.mesh.make_mesh`): parameters laid out as in
        training, rows of a batch divided over the devices."""
        params = jax.device_put(self.params, sharding.state_shardings(self.params, mesh))
        return Generator(self.model, params, self.tokenizers, mesh, is_divided=self.is_divided)

    def rolled(self) -> "Generator":
        """The same, its blocks in a loop: compiles in half of the time, 15-20 % slower on a CPU."""
        other = copy.copy(self)
        other.model = dataclasses.replace(self.model, scan_unroll=1)
        return other

    def of_few_programs(self) -> "Generator":
        """The same with one small program per target, whatever is known: for few rows."""
        other = self.rolled()
        other.fit_slots = False
        return other

    def _of_blocks(
        self, state: State, keys: Key[Array, "b"] | None, batch_size: int, compute: Compute
    ) -> list[Any]:
        devices = Devices(mesh=self.mesh, is_divided=self.is_divided)
        return devices.compute(state, keys, batch_size, compute)

    def _trunk(self, state: State) -> tuple[FourM, Any, State]:
        """What a pass over a state takes: the kernels of the blocks are cast once and kept."""
        return self.model, self._kernels.of(self.model, self.params, state.batch_size), state

    def _predict(self, state: State, targets: Sequence[str]) -> dict[str, Any]:
        return parallel.predict(*self._trunk(state), targets, fit_slots=self.fit_slots)

    @property
    def parts(self) -> Parts:
        """Model and tokenizers, without the parameters."""
        return Parts(model=self.model, tokenizers=self.tokenizers, vocabulary=self.vocabulary)

    def start(self, conditions: Mapping[str, Any], targets: Iterable[str]) -> State:
        """Encode conditions (see `conditions.encode`) and lay out the targets.

        Raises:
          ValueError: a condition that the model does not read, a target that it does not predict,
            or anything that `conditions.encode` refuses.
        """
        job_lib.check_names(self.parts, conditions, targets)
        specs = {name: self.spec(name) for name in conditions}
        entries = condition_entries.encode_all(conditions, specs, self.tokenizers)
        return self._with_slots(
            states.create(entries, targets, specs=self.model.modalities, vocabulary=self.vocabulary)
        )

    def _with_slots(self, state: State) -> State:
        wide = (self.model.modalities, self.model.inputs, self.vocabulary)
        return state if self.fit_slots else states.with_all_slots(state, *wide)

    def generate(
        self,
        conditions: Mapping[str, Any],
        targets: Sequence[str] | str = "all",
        *,
        plan: Plan | None = None,
        num_steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        intermediate: Sequence[str] | None = None,
        guides: Sequence[Guide] = (),
        mask: Any = None,
        seed: int | np.integer | Sequence[int] = 0,
        num_samples: int = 1,
        batch_size: int = 64,
        show_progress: bool = False,
    ) -> Generated:
        """Generate every target from the conditions, one after the other.

        Args:
          conditions: by modality, see `conditions.encode`. A target among them is completed: a text
            with holes, or a grid where `mask` says.
          targets: names, or "all" that the model predicts and of which nothing is given. A
            continuous map that is written in one pass at temperature 0 is decoded from the average
            of its codes, which is nearer the truth than the most likely one; `ids` are the latter.
          plan: how; targets or steps in their order, or {target: {field of `schedule.Target`:
            value}} of what differs from `generate.defaults`, as the next three do for all.
          num_steps, guidance, temperature: of all targets; `num_steps` of grids alone. Not beside
            a plan of all targets or steps, which says them.
          sampling: filters and drawing rule of all targets; default: those of the plan's targets,
            for steps a nucleus of 0.8 as in the published demo.
          intermediate: targets that are generated before all others, in this order, and then
            conditions of them. Default: the drafts of the targets (`ModalitySpec.drafts`), where
            nothing but texts is given, guides too, and no whole plan says more.
          guides: conditions with weights, see `guides.Guide`; then no other guidance, whatever a
            plan says of it.
          mask: what is generated anew of targets that are given, of all or by name, see
            `editing.pixel_mask`. Kept tokens stay as they are, and outside the mask the decoded
            result is that of the given tokens.
          seed: row i of the conditions draws from stream (seed, i), whatever the batch size; of
            several seeds, one per row, each row is what it would be alone. (Where masks leave
            different parts open, the row with most of it sets the steps of all.)
          num_samples: results per row of the conditions, next to each other; the first is the one
            of a single sample.
          batch_size: rows on the device at once.
          show_progress: draw a bar over the targets.

        Raises:
          ValueError: what `start` refuses, a target that is given whole, an option that is not
            finite or says again what plan or guides say, or a plan that leaves a target out.
        """
        job = job_lib.prepare(
            self.parts,
            conditions,
            targets,
            plan=plan,
            changes={"num_steps": num_steps, "guidance": guidance, "temperature": temperature},
            intermediate=intermediate,
            guides=guides,
            mask=mask,
        )
        keys = job_lib.keys_of(seed, job.state.batch_size, num_samples)
        state = self._with_slots(job.state)
        state = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_samples, axis=0), state)

        def write(_: np.ndarray, block: State, own_keys: Any) -> Any:
            done, averages = block, dict[str, np.ndarray]()
            for name, after in self._passes(job, block, own_keys, sampling, show_progress):
                if name in job.averaged:
                    averages[name] = self._average(done, name)
                done = after
            tokens = {name: (done.ids[name], done.known[name]) for name in job.targets}
            return jax.device_get(tokens), averages

        blocks = self._of_blocks(state, keys, batch_size, write)
        joined, averages = jax.tree.map(
            lambda *leaves: np.concatenate(leaves)[: state.batch_size], *blocks
        )
        in_order = {name: joined[name] for name in job.targets}
        return self._results(in_order, job, averages)

    def _average(self, state: State, name: str) -> np.ndarray:
        """Raw signals of the average codes of a target of which nothing is known."""
        probabilities = self._predict(state, [name])[name]
        grid = results.as_grid(self.spec(name), np.asarray(probabilities))
        return self.tokenizer(name).decode_probabilities(grid)

    def stream(
        self,
        conditions: Mapping[str, Any],
        targets: Sequence[str] | str = "all",
        *,
        sampling: Sampling | None = None,
        seed: int | np.integer | Sequence[int] = 0,
        **options: Any,
    ) -> Iterator[tuple[str, Generated]]:
        """Generate as `generate` does, all rows at once; yields the target in hand, and what there
        is of the results, after every pass over a grid and after every text.

        What is open yet of a grid is decoded as id 0, see `Generated.known`. The last results are
        those of `generate`.

        Args:
          options: `plan`, `num_steps`, `guidance`, `temperature`, `intermediate`, `guides` and
            `mask` of `generate`.
        """
        changed = ("num_steps", "guidance", "temperature")
        changes = {name: options.pop(name, None) for name in changed}
        job = job_lib.prepare(self.parts, conditions, targets, changes=changes, **options)
        keys = job_lib.keys_of(seed, job.state.batch_size, 1)
        begun: list[str] = []
        before, averages = self._with_slots(job.state), dict[str, np.ndarray]()
        for name, state in self._passes(job, before, keys, sampling, show_progress=False):
            begun += [] if name in begun else [name]
            if name in job.averaged:
                averages[name] = self._average(before, name)
            tokens = jax.device_get({one: (state.ids[one], state.known[one]) for one in begun})
            in_order = {one: tokens[one] for one in begun}
            yield name, self._results(in_order, job, averages)
            before = state

    def _passes(
        self,
        job: Job,
        state: State,
        keys: Key[Array, "b"],
        sampling: Sampling | None,
        show_progress: bool,
    ) -> Iterator[tuple[str, State]]:
        return chain.iterate(
            *self._trunk(state),
            job.steps,
            keys=keys,
            sampling=sampling or job.filters,
            conditions=job.groups,
            drafts=job.drafts,
            vocabulary=self.vocabulary,
            fit_slots=self.fit_slots,
            programs=self._programs,
            show_progress=show_progress,
        )

    def best_of(
        self,
        conditions: Mapping[str, Any],
        targets: Sequence[str] | str,
        num_samples: int,
        *,
        verifier: str,
        **options: Any,
    ) -> Generated:
        """Of several samples per row, the one that agrees best with one of its conditions.

        Args:
          verifier: the condition that must be likely given what was generated (`score`), such as
            the caption of a picture.
          options: of `generate`.

        Raises:
          ValueError: the verifier is none of the conditions or cannot be predicted, or anything
            that `generate` refuses.
        """
        if verifier not in conditions:
            raise ValueError(unknown_value("verifier among the conditions", verifier, conditions))
        job_lib.check_names(self.parts, (), [verifier])
        made = self.generate(conditions, targets, num_samples=num_samples, **options)
        wanted = made.ids if targets == "all" else targets  # a picture is judged without its drafts
        given = self._as_conditions(made, wanted)
        specs = {verifier: self.spec(verifier)}
        only = {verifier: conditions[verifier]}
        entry = condition_entries.encode_all(only, specs, self.tokenizers)[verifier]
        num_rows = len(next(iter(made.ids.values()))) // num_samples
        repeats = num_samples * num_rows // len(next(iter(entry.values())))
        scores = self.score(
            given, verifier, {k: np.repeat(a, repeats, 0) for k, a in entry.items()}
        )
        best = scores.reshape(num_rows, num_samples).argmax(axis=1)
        chosen = np.arange(num_rows) * num_samples + best
        return dataclasses.replace(made, scores=scores).rows(chosen)

    def _as_conditions(self, made: Generated, names: Iterable[str]) -> dict[str, Any]:
        """Results as the model reads them: pictures as pixels, which say more than their ids."""
        specs = [self.spec(name) for name in self.model.inputs]
        pixels = {spec.source: spec.name for spec in specs if spec.kind == "pixels" and spec.source}
        given: dict[str, Any] = {}
        for name in names:
            shown = pixels.get(self.spec(name).source)
            if shown and name in made.decoded and self.spec(name).kind == "grid":
                given[shown] = made.decoded[name].raw
            elif name in self.model.inputs:
                given[name] = {"ids": made.ids[name], "known": made.known[name]}
        return given

    def score(
        self, conditions: Mapping[str, Any], name: str, value: Any, *, batch_size: int = 64
    ) -> Float[np.ndarray, "b"]:
        """Mean log probability (nats) per token of a value, given the conditions; see `scoring`.

        What an entry of the batch contract does not know does not count; NaN where that is all.

        How well modalities agree: score({"tok_rgb": ids}, "caption", texts) of a generated
        picture, or of any sample with itself.

        Raises:
          ValueError: as `start`.
        """
        given = {one: entry for one, entry in conditions.items() if one != name}
        entry = condition_entries.encode(self.spec(name), value, self.tokenizers)
        state = self.start(given, [name])
        there = states.create({name: entry}, [], specs=self.model.modalities)
        ids, known = jax.device_get((there.ids[name], there.known[name]))
        if len(ids) != state.batch_size:
            raise ValueError(f"{len(ids)} values of {name!r} for {state.batch_size} rows")

        def score(rows: np.ndarray, block: State, _: Any) -> Any:
            return scoring.log_likelihood(*self._trunk(block), name, ids[rows], known[rows])

        parts = self._of_blocks(state, None, batch_size, score)
        return np.concatenate(parts)[: state.batch_size]

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

        def predict(_: np.ndarray, block: State, __: Any) -> Any:
            return jax.device_get(self._predict(block, targets))

        parts = self._of_blocks(state, None, batch_size, predict)
        return {
            name: np.concatenate([part[name] for part in parts])[: state.batch_size]
            for name in targets
        }

    def encode(
        self, conditions: Mapping[str, Any], *, depth: int = 0, batch_size: int = 64
    ) -> feature_lib.Features:
        """Vectors [n, l, d] of every token that the encoder sees of the conditions.

        Args:
          depth: blocks that are run, before the final norm; 0: all.

        Raises:
          ValueError: as `start`, or a depth that the encoder does not have.
        """
        return self._features(conditions, "", depth, batch_size)

    def features(
        self,
        conditions: Mapping[str, Any],
        kind: str = "encoder",
        *,
        depth: int = 0,
        batch_size: int = 64,
    ) -> Float[np.ndarray, "n d"]:
        """One vector per row, see `generate.features`: means over tokens, or predicted vectors.

        Args:
          kind: "encoder", "decoder:NAME" or "global:NAME".
          depth: of the encoder, as in `encode`.

        Raises:
          ValueError: an unknown kind, a depth of what the whole model predicts, or as `encode`.
        """
        head, spec = feature_lib.parse(kind, self.model)
        feature_lib.check_depth(self.model, depth, head)
        if head == "global" and spec is not None:
            made = self.predict(conditions, [spec.name], batch_size=batch_size)[spec.name]
            grid = results.as_grid(spec, made)
            vectors = self.tokenizer(spec.name).decode_probabilities(grid)
            return np.asarray(vectors, np.float32).reshape(len(grid), -1)
        target = spec.name if spec is not None else ""
        return self._features(conditions, target, depth, batch_size).pooled()

    def _features(
        self, conditions: Mapping[str, Any], target: str, depth: int, batch_size: int
    ) -> feature_lib.Features:
        given = {name: value for name, value in conditions.items() if name != target}
        state = self.start(given, [])

        def vectors(_: np.ndarray, block: State, __: Any) -> Any:
            made = feature_lib.compute(*self._trunk(block), target=target, depth=depth)
            return made.vectors, made.valid

        parts = self._of_blocks(state, None, batch_size, vectors)
        made = [feature_lib.Features(vectors=v, valid=valid) for v, valid in parts]
        return feature_lib.joined(made, state.batch_size)

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

    def _results(
        self,
        tokens: Mapping[str, tuple[np.ndarray, np.ndarray]],
        job: Job,
        averages: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> Generated:
        decoded, lacking = {}, {}
        for name, (ids, known) in tokens.items():
            spec = self.spec(name)
            one = results.decode(spec, ids, known, self.tokenizers)
            if name in averages:
                decoded[name] = results.Decoded(averages[name])
            elif one is None:
                lacking[name] = missing(spec, self.tokenizers)
            elif name in job.edits:
                blended = job.edits[name].blend(one.raw, spec, self.tokenizer(name))
                decoded[name] = results.Decoded(blended)
            else:
                decoded[name] = one
        return Generated(
            ids={name: ids for name, (ids, _) in tokens.items()},
            known={name: known for name, (_, known) in tokens.items()},
            decoded=results.DecodedResults(decoded, lacking),
        )
