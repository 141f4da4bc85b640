"""The header of a safetensors file, looked at before the library reads it.

The library checks it well, but takes quadratic time for long shapes, and its NumPy reader trusts
the types.
"""

from fourm_jax.utils import io, plain_data

LENGTH_BYTES = 8  # before the header
MAX_RANK = 32
MAX_NAME = 1000  # characters


def check(text: bytes, where: object) -> None:
    """Refuse a header (the bytes after its length) that is costly to read.

    Whether offsets and sizes fit is left to the library.

    Raises:
      ValueError: too long, no JSON object, or a name or shape that is too long.
    """
    if len(text) > io.MAX_JSON_BYTES:
        raise ValueError(f"{where}: header of more than {io.MAX_JSON_BYTES} bytes")
    header = io.parse_json(text, f"{where}: header")
    if not isinstance(header, dict):
        raise ValueError(f"{where}: header {plain_data.shown(header)}, expected a JSON object")
    for name, entry in header.items():
        if len(name) > MAX_NAME:
            raise ValueError(f"{where}: a name of {len(name)} characters, allowed: {MAX_NAME}")
        if name != "__metadata__" and isinstance(entry, dict):
            _check_entry(name, entry, where)


def _check_entry(name: str, entry: dict, where: object) -> None:
    dtype, shape = entry.get("dtype", ""), entry.get("shape", [])
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise ValueError(
            f"{where}: tensor {name!r} has dtype {plain_data.shown(dtype)} and shape "
            f"{plain_data.shown(shape)}"
        )
    if len(shape) > MAX_RANK:
        raise ValueError(f"{where}: tensor {name!r} has {len(shape)} axes, allowed: {MAX_RANK}")
