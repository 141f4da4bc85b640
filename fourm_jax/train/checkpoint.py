"""Checkpoints: state, config and modality fingerprint, saved in the background, restored anywhere.

One orbax `CheckpointManager` per workdir. A state is restored onto *our* shardings, so that any
mesh reads what any other wrote; call `restore` outside `jax.set_mesh` (orbax fails inside it on
some versions). The data position needs no file: batch n is a function of (seed, n), n = step.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from fourm_jax.models import trained
from fourm_jax.models.trained import Description
from fourm_jax.parallel import distributed
from fourm_jax.train import state as state_lib
from fourm_jax.train import stored_arrays
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import digests, io, progress, tree, upgrades
from fourm_jax.utils.run_folder import CHECKPOINTS

# Names of orbax: of a folder that is being written, of a file with times that it still changes, and
# of one that says that a folder of an object store, which cannot be renamed at once, is complete.
_UNFINISHED, _METADATA = "orbax-checkpoint-tmp", "_CHECKPOINT_METADATA"
_COMPLETE = "commit_success.txt"
_LOSS = "metrics/metrics"  # where the metrics of a checkpoint lie in its folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Saved:
    """What a policy looks at.

    Attributes:
      metrics: those that the checkpoint was saved with; None where there were none.
    """

    step: int
    metrics: Mapping[str, float] | None


class Checkpointer:
    """Saves and restores the states of one workdir."""

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1, keep_best: int = 0) -> None:
        """Open the folder; the `keep` newest checkpoints stay (0 = all).

        So do the `keep_best` with the lowest held-out loss, of those that were saved with one.
        """
        self._folder = io.absolute(workdir) / CHECKPOINTS
        self._policy = _policy(keep, keep_best)
        self._keeps_best = keep_best > 0
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            best_fn=_goodness if keep_best else None,
            create=True,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        self._manager = trained.open_manager(self._folder, options)
        self._saving: int | None = None
        self._passed_over: list[int] = []
        self._num_damaged: dict[int, int] = {}  # of the checkpoints that were there at the start

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        state: state_lib.TrainState,
        description: Description,
        step: int,
        *,
        held_out_loss: float | None = None,
    ) -> None:
        """Start to save `state`; a failure of the previous save is raised here, at the latest."""
        self._manager.check_for_errors()
        self._set_aside_passed_over()
        if step in self.steps():
            return
        self._manager.wait_until_finished()
        self._saving = step
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                description=ocp.args.JsonSave(dataclasses.asdict(description)),
            ),
            metrics=None if held_out_loss is None else {"loss": held_out_loss},
        )

    def add_held_out_loss(self, step: int, loss: float) -> None:
        """Give the checkpoint of a step the loss that it was saved without; keep what is to stay.

        Nothing happens where there is no such checkpoint, or where it has a loss.
        """
        if not self._keeps_best or step not in self.steps():
            return
        self.wait()
        if not distributed.decided_by_first(lambda: self._manager.metrics(step) is None):
            return
        self._set_aside_passed_over()
        if jax.process_index() == 0:
            folder = self._folder / str(step)
            io.write_json(folder / _LOSS, {"loss": loss})
            digests.add(folder, _LOSS)
        distributed.decided_by_first(lambda: 0)  # all processes see the file
        self._manager.reload()
        self._remove_others()

    def _remove_others(self) -> None:
        """Remove what a save would remove now."""
        found = [_Saved(step=step, metrics=self._manager.metrics(step)) for step in self.steps()]
        stay = self._policy.should_preserve(found, context=policies.PreservationContext())
        for one, stays in zip(found, stay, strict=True):
            if not stays:
                self._manager.delete(one.step)

    def wait(self) -> None:
        """Wait for the save under way and raise its error, if any."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Wait, then let go of threads."""
        self._manager.close()

    def describe(self) -> tuple[int, Description] | None:
        """Step and description of the newest sound checkpoint; None where there is none at all.

        Raises:
          ValueError: all are damaged.
        """
        if not self.steps():
            return None
        return trained.read_newest(
            self._manager,
            self._folder,
            lambda step: (step, trained.read_description(self._manager, step)),
            self._num_damaged,
        )

    def restore(self, abstract: state_lib.TrainState) -> state_lib.TrainState | None:
        """Newest sound state, or None; `abstract` gives shapes, types and shardings.

        A damaged checkpoint (a flipped bit, a full disk) is passed over with one line. It is set
        aside under the name "<step>.broken" once the run saves again, not before.

        Raises:
          ValueError: the checkpoint holds other arrays than `abstract` (names the first ones), or
            all checkpoints are damaged.
        """

        def read(step: int) -> tuple[int, state_lib.TrainState]:
            return step, read_state(self._manager, step, abstract)

        if not self.steps():
            return None
        restored, state = trained.read_newest(self._manager, self._folder, read, self._num_damaged)
        self._passed_over = [step for step in self.steps() if step > restored]
        return state

    def _set_aside_passed_over(self) -> None:
        """Rename what was passed over, so that the run can save at these steps again."""
        if not self._passed_over:
            return
        if jax.process_index() == 0:
            for step in self._passed_over:
                (self._folder / str(step)).rename(_free_name(self._folder / f"{step}.broken"))
        self._passed_over = []
        distributed.decided_by_first(lambda: 0)  # all processes see the renamed folders
        self._manager.reload()

    def _write_digests(self) -> None:
        """Called by orbax in its thread: all files are written, the folder has no name yet.

        In an object store it has its name from the start.
        """
        if jax.process_index() == 0:
            unnamed = list(self._folder.glob(f"{self._saving}.{_UNFINISHED}*"))
            folder = unnamed[0] if unnamed else self._folder / str(self._saving)
            try:
                arrays = stored_arrays.find(folder / trained.STATE, folder)
                digests.write_arrays(folder, arrays)
            except (ValueError, KeyError) as error:  # saved all the same, by an orbax of the future
                progress.announce(f"arrays of checkpoint {self._saving} have no digests: {error}")
            digests.write(folder, except_names=(_METADATA, _COMPLETE))


def _policy(keep: int, keep_best: int) -> policies.AnyPreservationPolicy:
    best = policies.BestN(
        get_metric_fn=_goodness, n=keep_best, keep_checkpoints_without_metrics=False
    )
    return policies.AnyPreservationPolicy([policies.LatestN(keep or None), best])


def _goodness(metrics: Mapping[str, float]) -> float:
    """The larger the better; what is no number is worse than any, and has no order of its own."""
    return -math.inf if math.isnan(metrics["loss"]) else -metrics["loss"]


def _free_name(path: epath.Path) -> epath.Path:
    """`path`, or the first of path-2, path-3, … that does not exist."""
    others = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], others) if not name.exists())


def check_same_run(
    found: Description, expected: Description, *, may_change: tuple[str, ...], where: str
) -> None:
    """Refuse to continue another run: vocabularies first, then config keys.

    A field of a modality that `found` lacks is newer than that checkpoint and is not compared; nor
    is a config key that only a newer one of the two has, with the value that stands for its lack.
    Paths of data are the same where they lead to the same file, or to the same one as seen from the
    work directory: a run may be renamed or copied together with its data.

    Args:
      may_change: config keys (or prefixes ending in ".") that a continued run may change.

    Raises:
      ValueError: names the first differing keys with both values.
    """
    known = {
        name: {key: value for key, value in fields.items() if key in found.modalities.get(name, ())}
        for name, fields in expected.modalities.items()
    }
    changed = config_lib.differences(found.modalities, known)
    if list(found.modalities) != list(expected.modalities):
        changed = {"modalities": (list(found.modalities), list(expected.modalities))}
    if not changed:
        current = upgrades.upgrade_config(expected.config)
        changed = {
            key: values
            for key, values in config_lib.differences(found.config, current).items()
            if not any(_covers(name, key) for name in may_change)
            and not _is_same_place(key, values, found.place, expected.place)
        }
    if changed:
        shown = [f"{key} is {old!r} there, {new!r} here" for key, (old, new) in changed.items()]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        raise ValueError(
            f"{where} holds another run's checkpoint: {'; '.join(shown[:3])}{more}. "
            "Use another workdir or the same values; nothing was overwritten"
        )


def _covers(name: str, key: str) -> bool:
    return key.startswith(name) if name.endswith(".") else key == name


def _is_same_place(
    key: str, values: tuple[Any, Any], before: trained.Place | None, now: trained.Place | None
) -> bool:
    """Whether two paths of a config are spellings of one path, or moved with the run."""
    if not (key.startswith("data.") or key == "init.source") or before is None or now is None:
        return False
    old, new = values
    both = isinstance(old, str) and isinstance(new, str)
    return both and bool(before.leads_to(old) & now.leads_to(new))


def _shapes(stored: Any) -> dict[str, tuple[int, ...]]:
    leaves = tree.named_leaves(stored)
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def read_state(
    manager: ocp.CheckpointManager, step: int, abstract: state_lib.TrainState
) -> state_lib.TrainState:
    """The state of one checkpoint; a metric that is newer than it starts at zero.

    Raises:
      MismatchError: it holds other arrays than `abstract`.
    """
    found = _shapes(manager.item_metadata(step)[trained.STATE])
    stored = abstract.replace(metrics=_stored(abstract.metrics, found))
    _check_shapes(found, stored, epath.Path(manager.directory) / str(step))
    state = trained.read_arrays(manager, step, stored)
    zeros = {name: jax.tree.map(_zeros, pair) for name, pair in abstract.metrics.items()}
    return state.replace(metrics={**zeros, **state.metrics})


def _stored(
    metrics: Mapping[str, tuple[Any, Any]], found: Mapping[str, tuple]
) -> dict[str, tuple[Any, Any]]:
    """The metrics that a checkpoint with these arrays has."""

    def is_there(name: str) -> bool:
        return all(leaf in found for leaf in tree.named_leaves({"metrics": {name: metrics[name]}}))

    return {name: pair for name, pair in metrics.items() if is_there(name)}


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros in the sharding of `leaf`, on the devices of all processes."""
    zeros = np.zeros(leaf.shape, leaf.dtype)
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: zeros[index])


def _check_shapes(found: Mapping[str, tuple], abstract: Any, path: epath.Path) -> None:
    expected = {name: tuple(leaf.shape) for name, leaf in tree.named_leaves(abstract).items()}
    wrong = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    if wrong:
        name = wrong[0]
        raise trained.MismatchError(
            f"checkpoint {path} does not fit this model: {name!r} has shape {found.get(name)} "
            f"there, {expected.get(name)} here ({len(wrong)} arrays differ)"
        )
