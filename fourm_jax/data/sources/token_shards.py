"""Source of records that lie in our ArrayRecord shards (raw signals or tokens)."""

from etils import epath

from fourm_jax.data.storage import shards


def make_source(split: str, *, directory: epath.PathLike) -> shards.Reader:
    """Open one split of a folder of shards; every shard is checked before the first read.

    Raises:
      ValueError: see `shards.Reader`.
    """
    return shards.Reader(directory, split)
