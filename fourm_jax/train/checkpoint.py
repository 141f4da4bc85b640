"""Checkpoints: state, config and modality fingerprint, saved in the background, restored anywhere.

One orbax `CheckpointManager` per workdir. A state is restored onto *our* shardings, so that any
mesh reads what any other wrote; call `restore` outside `jax.set_mesh` (orbax fails inside it on
some versions). The data position needs no file: batch n is a function of (seed, n), n = step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from fourm_jax.models import trained
from fourm_jax.models.trained import Description
from fourm_jax.train import state as state_lib
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import progress, tree
from fourm_jax.utils.run_folder import CHECKPOINTS


class Checkpointer:
    """Saves and restores the states of one workdir."""

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1) -> None:
        """Open the folder; `keep` newest checkpoints stay (0 = all)."""
        self._folder = epath.Path(workdir).expanduser().absolute() / CHECKPOINTS
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep or None, create=True, enable_async_checkpointing=True
        )
        self._manager = trained.open_manager(self._folder, options)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: state_lib.TrainState, description: Description, step: int) -> None:
        """Start to save `state`; a failure of the previous save is raised here, at the latest."""
        self._manager.check_for_errors()
        if step in self.steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                description=ocp.args.JsonSave(dataclasses.asdict(description)),
            ),
        )

    def wait(self) -> None:
        """Wait for the save under way and raise its error, if any."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Wait, then let go of threads."""
        self._manager.close()

    def describe(self) -> tuple[int, Description] | None:
        """Step and description of the newest checkpoint whose description can be read."""
        for step in reversed(self.steps()):
            try:
                return step, trained.read_description(self._manager, step)
            except Exception as error:
                _report_broken(self._folder / str(step), error)
        return None

    def restore(self, abstract: state_lib.TrainState) -> state_lib.TrainState | None:
        """Newest state that can be read, or None; `abstract` gives shapes, types and shardings.

        An unreadable checkpoint (cut short by a kill or a full disk) is set aside under the name
        "<step>.broken" with one line, and the one before it is taken.

        Raises:
          ValueError: the checkpoint holds other arrays than `abstract` (names the first ones), or
            none of several checkpoints can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                found = _shapes(self._manager.item_metadata(step)["state"])
                _check_shapes(found, abstract, self._folder / str(step))
                return trained.read_arrays(self._manager, step, abstract)
            except MismatchError:
                raise
            except Exception as error:
                _report_broken(self._folder / str(step), error)
                if jax.process_index() == 0:
                    broken = self._folder / str(step)
                    broken.rename(self._folder / f"{step}.broken")
                self._manager.reload()
        if steps:
            raise ValueError(f"none of the checkpoints {steps} in {self._folder} can be read")
        return None


class MismatchError(ValueError):
    """A sound checkpoint of something else."""


def check_same_run(
    found: Description, expected: Description, *, may_change: tuple[str, ...], where: str
) -> None:
    """Refuse to continue another run: vocabularies first, then config keys.

    A field of a modality that `found` lacks is newer than that checkpoint and is not compared.

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
        changed = {
            key: values
            for key, values in config_lib.differences(found.config, expected.config).items()
            if not any(_covers(name, key) for name in may_change)
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


def _shapes(stored: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    leaves = tree.named_leaves(stored)
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def _check_shapes(found: Mapping[str, tuple], abstract: Any, path: epath.Path) -> None:
    expected = {name: tuple(leaf.shape) for name, leaf in tree.named_leaves(abstract).items()}
    wrong = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    if wrong:
        name = wrong[0]
        raise MismatchError(
            f"checkpoint {path} does not fit this model: {name!r} has shape {found.get(name)} "
            f"there, {expected.get(name)} here ({len(wrong)} arrays differ)"
        )


def _report_broken(path: epath.Path, error: Exception) -> None:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    progress.announce(
        f"checkpoint {path} cannot be read ({reason[0][:200]}); trying the one before"
    )
