"""The result of a transfer on disk: with adapters only they and the head, else all of the encoder.

A folder with transfer.json (the config) and weights.safetensors. Adapters are loaded onto their
base, which `config.init` names; what that starts anew of the encoder, such as a vector that the
base does not read, lies beside them.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import ml_collections
import numpy as np
from etils import epath
from jaxtyping import UInt8

from fourm_jax import loading
from fourm_jax.convert import safetensors_io
from fourm_jax.data.sources import fake
from fourm_jax.models import parts
from fourm_jax.ops import tiles
from fourm_jax.train import init, run_config, transfer_config
from fourm_jax.train.state import TrainState
from fourm_jax.train.transfer_task import Labels, TransferTask
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io, tree

CONFIG, WEIGHTS = "transfer.json", "weights.safetensors"
TILES = 32  # of a large picture on the device at once
_OF_THE_BASE = ("trunk/", "thinker/")


@dataclasses.dataclass(frozen=True, eq=False)
class Transferred:
    """A fine-tuned encoder with its head.

    Attributes:
      task: what it predicts from what.
      params: trunk, head, and adapters where there are some.
    """

    task: TransferTask
    params: Mapping[str, Any]

    @functools.cached_property
    def _predict(self) -> Callable[[Any, Any], Any]:
        """Compiled once for batches of one size, however often it is called."""
        return jax.jit(self.task.predict)

    def predict(self, batch: Mapping[str, Any]) -> np.ndarray:
        """Class indices, or numbers in their own units: [b] or [b, k], of pixels [b, h, w (k)].

        Args:
          batch: {input: its entry of the batch contract}, of all inputs.
        """
        output = np.asarray(self._predict(self.params, dict(batch)))
        return _answer(output, self.task.labels_of)

    def predict_large(self, picture: UInt8[np.ndarray, "h w c"], overlap: int) -> np.ndarray:
        """Classes or numbers of the pixels of a picture of any size, from overlapping tiles.

        Args:
          overlap: pixels that neighbouring tiles share, at least.

        Raises:
          ValueError: a model of pictures' labels or of other inputs, a picture smaller than a tile.
        """
        settings, specs = self.task.labels_of, self.task.inputs
        if not settings.has_pixels or len(specs) > 1:
            raise ValueError("tiles need a model from a picture alone to labels of its pixels")

        def predict_tiles(cut: np.ndarray) -> np.ndarray:
            size, found = min(len(cut), TILES), []
            for start in range(0, len(cut), size):
                rows = cut[np.minimum(np.arange(start, start + size), len(cut) - 1)]
                entry = {"pixels": rows, "present": np.ones(size, bool)}
                found.append(np.asarray(self._predict(self.params, {specs[0].name: entry})))
            return np.concatenate(found)[: len(cut)]

        output = tiles.predict(picture, specs[0].image_shape[:2], overlap, predict_tiles)
        return _answer(output, settings)


def _answer(output: np.ndarray, settings: Labels) -> np.ndarray:
    """Class indices of logits, or numbers in their own units."""
    if settings.has_classes:
        return output.argmax(-1)
    values = output * settings.std + settings.mean
    return values[..., 0] if settings.num_outputs == 1 else values


def save(config: ml_collections.ConfigDict, state: TrainState, folder: epath.PathLike) -> None:
    """Write what `config` trained; adapters without the encoder that they adapt."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = jax.device_get(state.eval_params)
    arrays = tree.named_leaves(params)
    if config.transfer.get("lora_rank", 0):
        task = transfer_config.make_task(config)
        named = parts.split(params, task.packed).items()
        arrays = {name: np.asarray(one) for name, one in named if not task.never_learns(name)}
    shapes = {name: (leaf.dtype, leaf.shape) for name, leaf in arrays.items()}
    safetensors_io.write(folder / WEIGHTS, shapes, arrays.items())
    io.write_json(folder / CONFIG, config_lib.to_json(config))


def load(folder: epath.PathLike, base: str = "") -> Transferred:
    """Read what `save` wrote.

    Args:
      base: where the encoder of adapters lies; default: where it lay in the training.

    Raises:
      ValueError: no such folder, or a base that does not fit.
    """
    place = pathlib.Path(folder).expanduser()
    if not (place / CONFIG).is_file():
        raise ValueError(f"{place} holds no {CONFIG}")
    config = config_lib.from_json(io.read_json(place / CONFIG))
    task = transfer_config.make_task(config)
    batch = fake.batch(task.inputs, 1)
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    expected = tree.named_leaves(shapes)
    file = safetensors_io.open_weights(place / WEIGHTS)
    arrays = dict(safetensors_io.Tensors(file))
    if task.labels_of.lora_rank:
        settings = run_config.init_settings(config)
        assert settings is not None  # `make_task` wants a base of adapters
        settings = dataclasses.replace(settings, source=base or settings.source)
        arrays |= _base(task, shapes, settings, arrays)
    for name, leaf in expected.items():
        found = arrays.get(name)
        if found is None or found.shape != leaf.shape:
            there = None if found is None else found.shape
            raise ValueError(f"{place}: {name!r} has shape {there}, expected {leaf.shape}")
    params = flax.traverse_util.unflatten_dict({n: arrays[n] for n in expected}, sep="/")
    return Transferred(task, params)


def _base(
    task: TransferTask,
    shapes: Any,
    settings: init.Settings,
    saved: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The arrays of the encoder as the training began: of the base, or saved where it was reset."""
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    found, _ = init.plan(
        parts.split(blank, task.packed),
        settings,
        loading.weights(settings.source),
        task.model.modalities,
    )
    there = {**saved, **{name: one.rows for name, one in found.items()}}
    arrays: dict[str, np.ndarray] = {}
    for path in tree.named_leaves(blank):
        if path.startswith(_OF_THE_BASE):
            names = [f"{path}/{rows.name}" for rows in task.packed.get(path, ())] or [path]
            rows = [there[name] for name in names if name in there]  # `load` checks the sizes
            arrays |= {path: np.concatenate(rows)} if rows else {}
    return arrays
