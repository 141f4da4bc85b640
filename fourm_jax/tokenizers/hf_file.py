"""A tokenizer file of the HF JSON format -> the library's tokenizer, in bounds.

The library takes what it is given on trust: a file can ask for patterns that run forever or make
its Rust code panic, which is no Exception in Python. So a file may hold WordPiece and the parts
around it that are known here, as the published file does.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import tokenizers
from etils import epath

from fourm_jax.utils import io, plain_data
from fourm_jax.utils.plain_data import FLAG, TEXT, dict_of, integer, list_of, optional

MAX_ID = 2**24
MAX_PARTS = 16  # of one sequence of normalizers or pre-tokenizers
PROBE = "A dog [UNK] [S_1] v0=1 ##x é 狗"
RULES: Mapping[str, plain_data.Rule] = {
    "model": plain_data.DICT,
    "added_tokens": list_of(plain_data.DICT, MAX_ID),
}
MODEL_RULES: Mapping[str, plain_data.Rule] = {
    "vocab": dict_of(integer(0, MAX_ID - 1)),
    "unk_token": TEXT,
    "continuing_subword_prefix": TEXT,
    "max_input_chars_per_word": integer(1, 2**16),
}
TOKEN_RULES: Mapping[str, plain_data.Rule] = {
    "id": integer(0, MAX_ID - 1),
    "content": TEXT,
    **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), FLAG),
}
# Parts around the model: allowed types, with the fields that they may have.
NORMALIZERS: Mapping[str, Mapping[str, plain_data.Rule]] = {
    "BertNormalizer": {
        "clean_text": FLAG,
        "handle_chinese_chars": FLAG,
        "strip_accents": optional(FLAG),
        "lowercase": FLAG,
    },
    **{name: {} for name in ("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents")},
}
# One character of a list, or up to so many of any: what `wordpiece.make_backend` writes. Patterns
# with more in them can take exponential time.
PATTERN = re.compile(
    r"(\\A|\(\?<=\[\\s\\S\]\))?\[\^?(\\x\{[0-9a-f]{1,6}\})+\]|\[\\s\\S\]\{1,[0-9]{1,4}\}"
)
SPLITTERS: Mapping[str, Mapping[str, plain_data.Rule]] = {
    "Split": {
        "pattern": plain_data.Rule(
            "a regex of one character class",
            lambda value: (
                isinstance(value, dict)
                and [*value] == ["Regex"]
                and isinstance(value["Regex"], str)
                and bool(PATTERN.fullmatch(value["Regex"]))
            ),
        ),
        "behavior": plain_data.Rule("'Isolated'", lambda value: value == "Isolated"),
        "invert": FLAG,
    },
    **{
        name: {} for name in ("BertPreTokenizer", "UnicodeScripts", "Whitespace", "WhitespaceSplit")
    },
}
DECODERS: Mapping[str, Mapping[str, plain_data.Rule]] = {
    "WordPiece": {"prefix": TEXT, "cleanup": FLAG}
}
PARTS = {"normalizer": NORMALIZERS, "pre_tokenizer": SPLITTERS, "decoder": DECODERS}
SEQUENCES = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
ABSENT = ("truncation", "padding", "post_processor")  # they would change lengths behind our back

Result = TypeVar("Result")


def read(file: epath.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a file.

    Raises:
      ValueError: no such format, parts that are not allowed, or whatever the library does not take.
    """
    where = f"{file} is no tokenizer of the HF JSON format"
    value = io.read_json(file)
    _check(value, where)
    try:
        return guarded(lambda: _make(value))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{where}: {error}") from error


def guarded(call: Callable[[], Result]) -> Result:
    """Call the library; a panic of its Rust code, which is no Exception, becomes a ValueError."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer library failed: {error}") from error


def _make(value: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_str(json.dumps(value))
    backend.decode(backend.encode(PROBE).ids, skip_special_tokens=False)
    return backend


def _check(value: Any, where: str) -> None:
    """Check all parts of a file."""
    plain_data.check(value, RULES, where, required=RULES)
    model = value["model"]
    if model.get("type") != "WordPiece":
        found = plain_data.shown(model.get("type"))
        raise ValueError(f"{where}: model of type {found}, allowed: 'WordPiece'")
    plain_data.check(model, MODEL_RULES, f"{where}: model", required=MODEL_RULES)
    ids = model["vocab"].values()
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"{where}: no tokens, or two of one id")
    for token in value["added_tokens"]:
        plain_data.check(token, TOKEN_RULES, f"{where}: added_tokens", required=TOKEN_RULES)
        if model["vocab"].get(token["content"]) != token["id"]:
            raise ValueError(f"{where}: added token {plain_data.shown(token)} is not in the model")
    for name in ABSENT:
        if value.get(name) is not None:
            raise ValueError(f"{where}: {name} is {plain_data.shown(value[name])}, allowed: null")
    for name, allowed in PARTS.items():
        for part in _flat(value.get(name), name):
            kind = part.get("type") if isinstance(part, Mapping) else None
            if not isinstance(kind, str) or kind not in allowed:
                found = plain_data.shown(part)
                raise ValueError(f"{where}: {name} {found}, allowed: {sorted(allowed)}")
            rules = allowed[kind]
            plain_data.check(part, rules, f"{where}: {name}", required=rules)


def _flat(part: Any, name: str) -> Iterator[Any]:
    """The part, or those of a sequence."""
    if isinstance(part, Mapping) and part.get("type") == "Sequence" and name in SEQUENCES:
        inner = part.get(SEQUENCES[name])
        if not isinstance(inner, list) or len(inner) > MAX_PARTS:
            yield None
        else:
            yield from inner
    elif part is not None:
        yield part
