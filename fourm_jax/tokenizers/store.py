"""A tokenizer on disk: a folder with card.json and weights.safetensors, complete or not there."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from fourm_jax.tokenizers.card import Card
from fourm_jax.utils import folders, io, safetensors_header

CARD = "card.json"
WEIGHTS = "weights.safetensors"
TEXT = "tokenizer.json"  # of the text tokenizer, in place of weights


def write(directory: epath.PathLike, tensors: Mapping[str, np.ndarray], card: Card) -> None:
    """Write beside `directory`, then rename; an earlier tokenizer there is replaced.

    Raises:
      ValueError: `directory` exists and holds something that is not a tokenizer.
    """
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with replacing(directory) as temporary:
        (temporary / WEIGHTS).write_bytes(safetensors.numpy.save(arrays))
        card.write(temporary / CARD)


def check_output(directory: epath.PathLike) -> None:
    """Refuse a folder that no tokenizer may replace.

    Raises:
      ValueError: `directory` exists and holds something that is not a tokenizer.
    """
    directory = epath.Path(directory)
    for path in sorted(directory.iterdir()) if directory.exists() else ():
        if path.name not in (CARD, WEIGHTS, TEXT) and not path.name.startswith("."):
            raise ValueError(f"{directory} exists and holds {path.name}; choose another folder")


@contextlib.contextmanager
def replacing(directory: epath.PathLike) -> Iterator[epath.Path]:
    """Yield a folder that becomes `directory` when it is complete.

    In an object store the files of a complete one are put there one by one, the card last: without
    it, nobody takes the folder for a tokenizer.

    Raises:
      ValueError: see `check_output`.
    """
    directory = epath.Path(directory)
    check_output(directory)
    if io.is_remote(directory):
        with tempfile.TemporaryDirectory() as temporary:
            yield epath.Path(temporary)
            _put(epath.Path(temporary), directory)
        return
    with folders.complete_or_absent(directory, replace=True) as partial:
        yield epath.Path(partial)


def _put(source: epath.Path, directory: epath.Path) -> None:
    (directory / CARD).unlink(missing_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == CARD):
        io.write_bytes(directory / path.name, path.read_bytes())


def read(directory: epath.PathLike) -> tuple[Card, dict[str, np.ndarray]]:
    """Return card and tensors.

    Raises:
      ValueError: a file is missing, truncated or of another format; nothing is unpickled.
    """
    directory = epath.Path(directory)
    for name in (CARD, WEIGHTS):
        if not (directory / name).exists():
            raise ValueError(f"{directory} is not a tokenizer folder: {name} is missing")
    card = Card.read(directory / CARD)
    content = (directory / WEIGHTS).read_bytes()
    try:
        length = int.from_bytes(content[: safetensors_header.LENGTH_BYTES], "little")
        start = safetensors_header.LENGTH_BYTES
        safetensors_header.check(content[start : start + length], "it")
        return card, safetensors.numpy.load(content)
    except Exception as error:  # the library's NumPy reader trusts types and shapes
        raise ValueError(
            f"{directory / WEIGHTS} is not a valid safetensors file: {error}"
        ) from error


def read_family(directory: epath.PathLike) -> str:
    """Return the family of the tokenizer in a folder, "text" for a text tokenizer without card.

    Raises:
      ValueError: there is no tokenizer, or a card that names no family.
    """
    card, text = epath.Path(directory) / CARD, epath.Path(directory) / TEXT
    if not card.exists():
        if text.exists():  # a file of the HF format, as published
            return "text"
        raise ValueError(f"{directory} is not a tokenizer folder: {CARD} is missing")
    value = io.read_json(card)
    if not isinstance(value, dict) or not isinstance(value.get("family"), str):
        raise ValueError(f"{card}: not the card of a tokenizer")
    return value["family"]


def check_tensors(
    found: Mapping[str, np.ndarray], expected: Mapping[str, jax.ShapeDtypeStruct], where: str
) -> None:
    """Raise ValueError naming the first tensor that is missing, unknown or of another shape."""
    for name in sorted(set(expected) - set(found)):
        raise ValueError(f"{where}: tensor {name!r} {expected[name].shape} is missing")
    for name in sorted(set(found) - set(expected)):
        raise ValueError(f"{where}: tensor {name!r} {found[name].shape} is not of this tokenizer")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise ValueError(
                f"{where}: tensor {name!r} is {found[name].dtype} {found[name].shape}, "
                f"expected {tensor.dtype} {tuple(tensor.shape)}"
            )
