"""Where the bytes of each array of a checkpoint lie, so that damage can be told by its name.

Orbax stores arrays as values of an OCDBT database (tensorstore's format): "<array>/<part>" ->
bytes of a file, or bytes within the node that names the key, where they are few.
"""

import urllib.parse
from collections.abc import Mapping
from typing import Any

import tensorstore as ts
from etils import epath

from fourm_jax.utils import io
from fourm_jax.utils.digests import Part


def find(state: epath.Path, root: epath.Path) -> dict[str, list[Part]]:
    """Return {array: its parts} of the database in folder `state`; files are named as in `root`.

    Raises:
      ValueError: a database of another form than orbax writes.
    """
    store = ts.KvStore.open(_spec(f"{state}/")).result()
    versions = ts.ocdbt.dump(store).result()["versions"]
    if len(versions) != 1:
        raise ValueError(f"{state}: {len(versions)} versions of its arrays, expected 1")
    location = versions[0]["root"]["location"]
    node = ts.ocdbt.dump(store, location).result()
    if node["height"]:
        raise ValueError(f"{state}: an index of {node['height'] + 1} levels, expected 1")
    within = state.relative_to(root).as_posix()
    arrays: dict[str, list[Part]] = {}
    for entry in node["entries"]:
        name = entry["key"].decode().rpartition("/")[0]
        part = _part(within, _place(entry, location))
        parts = arrays.setdefault(name, [])
        if part not in parts:
            parts.append(part)
    return arrays


def _spec(path: str) -> dict[str, str]:
    """What tensorstore calls a folder."""
    if not io.is_remote(path):
        return {"driver": "file", "path": path}
    scheme, _, place = path.partition("://")
    bucket, _, within = place.partition("/")
    return {"driver": {"gs": "gcs"}.get(scheme, scheme), "bucket": bucket, "path": within}


def _place(entry: Mapping[str, Any], node: str) -> str:
    return node if "inline_value" in entry else entry["indirect_value"]


def _part(within: str, location: str) -> Part:
    """Example: "value:ocdbt.process_0/:d/5afb:0:171" is 171 bytes of "ocdbt.process_0/d/5afb"."""
    _, base, file, offset, length = location.split(":")
    path = urllib.parse.unquote(f"{within}/{base}{file}")
    return Part(path, int(offset), int(length))
