"""Models of the library transformers: loaded from safetensors only, run on pictures of one size."""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from fourm_jax.labelers import extras
from fourm_jax.labelers.base import Record

Images = UInt8[np.ndarray, "b h w 3"]


class Model(NamedTuple):
    """A model that is ready to run.

    Attributes:
      net: the torch module, in evaluation mode, on `device`.
      processor: its image processor.
      device: "cuda" where torch finds one, else "cpu".
      settings: {"model": what identifies its weights}.
      torch: the library.
    """

    net: Any
    processor: Any
    device: str
    settings: dict[str, str]
    torch: Any

    def tensor(self, array: Shaped[np.ndarray, "..."]) -> Any:
        """The array as a tensor where the model is."""
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def prepared(self, images: Images) -> dict[str, Any]:
        """Inputs of the model, as its image processor makes them."""
        return self.processor(images=list(images), return_tensors="pt").to(self.device)


def load(labeler: str, auto_class: str, model: str) -> Model:
    """Load a model and its image processor.

    Args:
      labeler: for messages.
      auto_class: class of transformers that knows the task, e.g. "AutoModelForDepthEstimation".
      model: a folder, or an id of the Hugging Face Hub. Neither code nor pickles in it are run.

    Raises:
      ValueError: the extra is missing; nothing there that can be loaded; no safetensors; weights
        that the task needs and the files lack (they would be random).
    """
    torch = extras.require("torch", labeler)
    transformers = extras.require("transformers", labeler)
    what, folder = f"labeler {labeler!r}, model {model}", pathlib.Path(model)
    if folder.is_dir() and not list(folder.glob("*.safetensors")):
        raise ValueError(f"{what}: no *.safetensors in the folder; pickled weights are refused")
    try:
        net, found = getattr(transformers, auto_class).from_pretrained(
            model, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        processor = transformers.AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # every part of the library has its own kinds of errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{what}: cannot be loaded with {auto_class}: {reason}") from error
    lacking = sorted(map(str, (*found["missing_keys"], *found["mismatched_keys"])))
    if lacking:
        raise ValueError(f"{what}: {len(lacking)} weights are missing or misfit, e.g. {lacking[0]}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = {"model": _fingerprint(folder) if folder.is_dir() else net.config._commit_hash}
    return Model(net.eval().to(device), processor, device, settings, torch)


def _fingerprint(folder: pathlib.Path) -> str:
    """sha256 over names and contents of what a model folder says."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def by_size(
    model: Model, run: Callable[[Images], Sequence[dict[str, Any]]]
) -> Callable[[Sequence[Record]], list[dict[str, Any]]]:
    """A labeler's function from one for pictures of equal size: those of a batch run together."""

    def label(records: Sequence[Record]) -> list[dict[str, Any]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, record in enumerate(records):
            groups.setdefault(record["rgb"].shape, []).append(number)
        labels: list[dict[str, Any]] = [{} for _ in records]
        for numbers in groups.values():
            images = np.stack([records[number]["rgb"] for number in numbers])
            with running(model):
                made = run(images)
            for number, fields in zip(numbers, made, strict=True):
                labels[number] = fields
        return labels

    return label


@contextlib.contextmanager
def running(model: Model) -> Iterator[None]:
    """Run a model without gradients; pictures on which it fails are refused, like bad ones."""
    try:
        with model.torch.inference_mode():
            yield
    except RuntimeError as error:  # shapes that do not fit, no memory left
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model fails on it: {reason}") from error


def sizes(images: Images) -> list[tuple[int, int]]:
    """(height, width) of each picture, as the library's post-processing wants them."""
    return [images.shape[1:3]] * len(images)


def array(tensor: Any, dtype: str) -> np.ndarray:
    """A tensor as a numpy array on the host."""
    return np.ascontiguousarray(tensor.cpu().numpy().astype(dtype))
