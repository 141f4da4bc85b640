"""Seeded damage to files: every mutator is a function of a generator and the bytes."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Mutate = Callable[[random.Random, bytes], bytes]

LENGTHS = (0, 1, 2, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
TOKENS = (b"[" * 50, b'{"a":', b"1e999", b"NaN", b"-", b"\xff\xfe", b"9" * 400, b"null", b"{}")
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 7, 2**15, 2**31, 2**63, 10**12, 10**30),
    *(1.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "float32", "F32", "F8_E4M3", "../x", "os.system", "a" * 3000, "\0", "\u202e", "None"),
    *("bfloat16", "object", "9" * 5000, "\ud800"),
    *([], {}, [[]], [0], [1, 2, 3], [-1], [2**40, 0], ["2"], [1] * 70, {"a": 1}, [None], [{}]),
)
NAMES = ("", "x", "a/b", "x:json", "\0", "z" * 300, "__metadata__", "__class__", "self", "type")
DEEP = 40  # lists around a value


def damage(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, insert, repeat and overwrite, once or several times."""
    array = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(array) + 1)
        match rng.choice("bbbbrrditspl"):
            case "b" if at < len(array):  # one bit
                array[at] ^= 1 << rng.randrange(8)
            case "r" if at < len(array):
                array[at] = rng.randrange(256)
            case "d":
                del array[at : at + rng.choice((1, 8, 100, 600))]
            case "i":
                array[at:at] = rng.randbytes(rng.randrange(1, 9))
            case "t":
                array[at:at] = rng.choice(TOKENS)
            case "s":  # a piece of the file itself
                start = rng.randrange(len(array) + 1)
                array[at:at] = array[start : start + rng.choice((4, 64, 512))]
            case "p":
                del array[at:]
            case "l":  # a length field
                size = rng.choice((2, 4, 8))
                value = rng.choice(LENGTHS) % 256**size
                array[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(array)


def damage_json(rng: random.Random, data: bytes) -> bytes:
    """Other values, types, names and depths in a JSON file; now and then damaged bytes."""
    if rng.random() < 0.1:
        return damage(rng, data)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = change(rng, value)
    return json.dumps(value).encode()


def damage_json_header(rng: random.Random, data: bytes) -> bytes:
    """As `damage_json`, on the header of a safetensors file, whose length follows."""
    if rng.random() < 0.3:
        return damage(rng, data)
    length = int.from_bytes(data[:8], "little")
    header = damage_json(rng, data[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def change(rng: random.Random, value: Any) -> Any:
    """A copy with one place changed, somewhere inside."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return _strange(rng)
    value = copy.copy(value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[rng.choice(NAMES)] = _strange(rng)
        case 1:
            value.insert(key, _strange(rng))
        case _:
            value[key] = change(rng, value[key])
    return value


def _strange(rng: random.Random) -> Any:
    value = copy.deepcopy(rng.choice(VALUES))
    if rng.random() < 0.05:
        for _ in range(DEEP * rng.choice((1, 5))):
            value = [value]
    return value
