"""Source of a plain folder of pictures, with the captions beside them (`a.jpg` and `a.txt`)."""

import os
import pathlib
import zlib
from typing import Any

from fourm_jax.data import picture_folder, sidecars
from fourm_jax.data.storage import left_out
from fourm_jax.data.storage.left_out import LeftOutRecord, RecordError
from fourm_jax.utils import errors


def make_source(
    split: str,
    *,
    directory: str,
    image_size: int,
    test_fraction: float = 0.1,
    num_records: int = 0,
) -> "FolderSource":
    """Open the pictures below a folder, in the order of their paths.

    Args:
      split: "train" or "test"; the path of a picture decides, so adding others moves none.
      image_size: pictures become their largest centred square, resized to so many pixels.
      test_fraction: share of the pictures that are "test": 0 = none, 1 = all.
      num_records: the first so many; 0 = all.

    Raises:
      ValueError: no such folder, no picture of this split in it, a number out of range.
    """
    if split not in ("train", "test"):
        raise ValueError(errors.unknown_value("split", split, ("train", "test")))
    if image_size < 1 or not 0 <= test_fraction <= 1:
        raise ValueError(
            f"image_size {image_size} and test_fraction {test_fraction}, allowed: 1 and more, 0..1"
        )
    files, others = picture_folder.find(directory)
    chosen = [file for file in files if _is_test(file, test_fraction) == (split == "test")]
    if not chosen:
        raise ValueError(
            f"{directory}: none of {len(files)} pictures is in split {split!r} with "
            f"test_fraction {test_fraction}"
        )
    if not 0 <= num_records <= len(chosen):
        raise ValueError(f"num_records {num_records}, allowed: 0..{len(chosen)}")
    return FolderSource(directory, chosen[: num_records or None], image_size, others)


class FolderSource:
    """Random access to records of `rgb` uint8 [h, w, 3] and `caption`.

    `caption` is a text, or a list of them (whoever tokenizes it draws one per record); it comes
    from the sidecar or else from the file name, and is absent where neither says anything.
    `left_out` lists the files that are no pictures.
    """

    def __init__(
        self,
        directory: os.PathLike | str,
        files: list[str],
        image_size: int,
        others: list[LeftOutRecord],
    ) -> None:
        self._root, self._files, self._size = pathlib.Path(directory), files, image_size
        self.left_out = others

    @property
    def content(self) -> str:
        """Changes with names and sizes of the files."""
        return picture_folder.fingerprint(self._root, self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one record; ValueError naming the file if picture or sidecar are not readable."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index}, allowed: 0..{len(self) - 1}")
        path = self._root / self._files[index]
        try:
            picture, _ = picture_folder.read(path, self._size)
            captions = sidecars.captions(path, pathlib.PurePath(self._files[index]).parent)
        except ValueError as error:
            reason = left_out.reason_of(error, "unreadable_record")
            raise RecordError(reason, f"{path}: {error}") from error
        top, left = ((side - self._size) // 2 for side in picture.shape[:2])
        record: dict[str, Any] = {"rgb": picture[top:, left:][: self._size, : self._size]}
        if captions:
            record["caption"] = captions[0] if len(captions) == 1 else captions
        return record

    def place(self, index: int) -> str:
        """Path of the picture, for messages."""
        return str(self._root / self._files[index])


def _is_test(file: str, share: float) -> bool:
    return zlib.crc32(file.encode("utf-8", "surrogateescape")) < share * 2**32
