"""One door: whatever holds a trained model becomes something that is ready to use.

| what `load` is given                                            | what it returns                |
|-----------------------------------------------------------------|--------------------------------|
| run folder: `trunk/`, with `tokenizers/NAME/` beside it         | `Generator`                    |
| work directory of one training: `checkpoints/`                  | `Generator`, or its tokenizer  |
| converted trunk: `trunk.json`                                   | `Generator`                    |
| published trunk: folder, .safetensors file or Hub id            | `Generator`                    |
| tokenizer: `card.json`; published: folder, .safetensors, Hub id | `TrainedTokenizer`             |
| text tokenizer: folder, or its tokenizer.json                   | `TextTokenizer`                |
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree

from fourm_jax.convert import checkpoint, fourm_config, hub
from fourm_jax.generate.generator import Generator
from fourm_jax.models import from_config
from fourm_jax.models import weights as weights_lib
from fourm_jax.models.backbones import vit
from fourm_jax.models.fourm import FourM
from fourm_jax.models.weights import Weights
from fourm_jax.tokenizers import base, store
from fourm_jax.tokenizers.text import TextTokenizer
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors
from fourm_jax.utils.run_folder import CHECKPOINTS, TOKENIZER, TOKENIZERS, TRANSFER, TRUNK

# What tells a folder of a model: tokenizer, converted trunk, published trunk or tokenizer.
MODEL_FILES = (store.CARD, checkpoint.TRUNK, fourm_config.WEIGHTS, fourm_config.PARTS)
Tokenizer = TrainedTokenizer | TextTokenizer


def load(
    source: str | os.PathLike,
    *,
    tokenizers: str | os.PathLike | Mapping[str, Any] | None = None,
    dtype: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    shardings: PyTree | None = None,
) -> Generator | Tokenizer:
    """Read a trunk with its tokenizers, or a tokenizer; see the table above.

    A missing tokenizer is an error only when a signal of its modality is encoded or decoded; token
    ids go in and out without it.

    Args:
      source: path or Hub id.
      tokenizers: of a trunk; a folder with one folder per tokenizer, or {name: path, Hub id or
        loaded tokenizer}. Default: the folder `tokenizers` in that of the trunk, or beside it.
      dtype: "float32" or "bfloat16", of the computation; default: as the source says, else
        float32. Parameters, losses, logits, ids and codes are float32 or integers in any case.
      overrides: of a published trunk, {modality: {field: value}} of specs that differ from the
        registry.
      shardings: of a trunk, where each parameter goes, a tree like the parameters; default: the
        default device.

    Raises:
      ValueError: nothing there that can be read, something that does not fit (names it), or an
        option that what was found does not have. Pickles are refused.
    """
    if dtype is not None:
        vit.compute_dtype(dtype)
    place = locate(source)
    found = _read(place, dtype=dtype, overrides=overrides, shardings=shardings)
    if isinstance(found, checkpoint.Trunk):
        return Generator(found.model, found.params, _tokenizers(found.model, tokenizers, place))
    options = {"tokenizers": tokenizers, "overrides": overrides, "shardings": shardings}
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{source} is a tokenizer; {name} is an option of trunks")
    return found


def load_generator(
    source: str | os.PathLike,
    *,
    tokenizers: str | os.PathLike | Mapping[str, Any] | None = None,
    dtype: str | None = None,
) -> Generator:
    """Read a trunk with its tokenizers, as `load` does.

    Raises:
      ValueError: as `load`; the source is a tokenizer.
    """
    found = load(source, tokenizers=tokenizers, dtype=dtype)
    if not isinstance(found, Generator):
        raise ValueError(f"{source} is a tokenizer, expected a trunk")
    return found


def weights(source: str | os.PathLike) -> Weights:
    """The parameters of whatever holds a model, for another training to start from.

    Raises:
      ValueError: as `load`; a text tokenizer, which has none.
    """
    place = locate(source)
    if (place / CHECKPOINTS).is_dir():
        from fourm_jax.models import trained  # orbax, which nothing else here needs

        return trained.read_weights(str(place))
    found = _read(place, dtype=None, overrides=None, shardings=None)
    if isinstance(found, checkpoint.Trunk):
        return weights_lib.of_trunk(found.model, found.params)
    if isinstance(found, TextTokenizer):
        raise ValueError(f"{source} is a text tokenizer, which has no weights")
    return weights_lib.of_variables(found.variables)


def locate(source: str | os.PathLike) -> epath.Path:
    """Path of the model itself: of a run folder its trunk, of a tokenizer's training its result.

    Raises:
      ValueError: there is nothing, or the Hub gives nothing.
    """
    place = hub.locate(source)
    if (place / TRUNK).is_dir():
        place /= TRUNK
    finished = place / TOKENIZER
    return finished if (place / CHECKPOINTS).is_dir() and finished.is_dir() else place


def _read(
    place: epath.Path,
    *,
    dtype: str | None,
    overrides: Mapping[str, Mapping[str, Any]] | None,
    shardings: PyTree | None,
) -> checkpoint.Trunk | Tokenizer:
    """What lies at a place that `locate` returns."""
    trains = (place / CHECKPOINTS).is_dir()
    if overrides is not None and (trains or (place / checkpoint.TRUNK).exists()):
        raise ValueError(f"{place} knows its modalities; overrides are for published trunks")
    if trains:
        return checkpoint.in_dtype(_read_trained(place, shardings), dtype)
    if place.suffix == ".json" or (place / store.TEXT).exists():
        if dtype is not None:
            raise ValueError(f"{place} is a text tokenizer, which has no dtype")
        return TextTokenizer.load(place)
    if place.is_dir() and not any((place / name).exists() for name in MODEL_FILES):
        there = sorted(path.name for path in place.iterdir())[:8]
        raise ValueError(
            f"no model in {place}: expected {TRUNK}/, {CHECKPOINTS}/ or one of {MODEL_FILES}; "
            f"found {there}"
        )
    return checkpoint.load(place, dtype=dtype, overrides=overrides, shardings=shardings)


def _read_trained(workdir: epath.Path, shardings: PyTree | None) -> checkpoint.Trunk:
    """The newest trunk of a training."""
    from fourm_jax.models import trained  # orbax, which nothing else here needs

    found = trained.load(workdir)
    if found.description.config.get("task") == "transfer":
        raise ValueError(
            f"{workdir} is a transfer, which generates nothing: fourm_jax.jobs.transferred.load "
            f"reads {workdir / TRANSFER}"
        )
    if found.description.config.get("task") != "fourm":
        raise ValueError(
            f"{workdir} is the training of a tokenizer which is not finished, or was saved "
            f"elsewhere: no {workdir / TOKENIZER}"
        )
    params = jax.device_put(found.params, shardings) if shardings else found.params
    with errors.described_by(workdir):
        model = from_config.make_model(config_lib.from_json(found.description.config))
    return checkpoint.Trunk(model, params)


def tokenizers_of(model: FourM, folder: str | os.PathLike) -> base.Tokenizers:
    """The tokenizers of a trunk that a folder with one folder per tokenizer has.

    Raises:
      ValueError: no such folder.
    """
    place = epath.Path(folder)
    return _tokenizers(model, place, place)


def _tokenizers(
    model: FourM, given: str | os.PathLike | Mapping[str, Any] | None, folder: epath.Path
) -> base.Tokenizers:
    names = sorted({spec.tokenizer for spec in model.modalities if spec.tokenizer})
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise ValueError(errors.unknown_value("tokenizer of this trunk", name, names))
        return {name: _tokenizer(name, source) for name, source in given.items()}
    if given is not None:
        place = epath.Path(given).expanduser()
        if not place.is_dir():
            raise ValueError(f"tokenizers={str(given)!r}: no such folder")
    else:
        inside, beside = folder / TOKENIZERS, folder.parent / TOKENIZERS
        place = inside if inside.is_dir() else beside
    return {name: _tokenizer(name, place / name) for name in names if (place / name).is_dir()}


def _tokenizer(name: str, source: Any) -> Any:
    if not isinstance(source, str | os.PathLike):
        return source
    found = load(source)
    if isinstance(found, Generator):
        raise ValueError(f"tokenizer {name!r}: {source} is a trunk")
    return found
