"""text/: the published vocabulary file, encoding and decoding, and reading masked texts."""

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.parity import generation
from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity
from fourm_jax.modalities import coordinates, metadata, metadata_fields
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.tokenizers import text

VOCABULARY = "text_tokenizer_4m_wordpiece_30k.json"
VARIABLE = "FOURM_TEXT_TOKENIZER"


def tokenizer(root: pathlib.Path) -> text.TextTokenizer:
    """The vocabulary file among the cases, or where the environment variable points.

    Raises:
      ValueError: it is in neither place.
    """
    path = root / "text" / VOCABULARY
    if not path.is_file():
        if VARIABLE not in os.environ:
            raise ValueError(f"no text/{VOCABULARY}; set {VARIABLE} to the published file")
        path = pathlib.Path(os.environ[VARIABLE])
    return text.TextTokenizer.load(path)


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per file."""
    for path in sorted(folder.iterdir()):
        if path.name == VOCABULARY:
            continue  # not a case: what the cases are computed with
        function = CHECKS.get(path.name)
        if function is None:
            yield path.name, quantities.unknown(["(file)"])
        else:
            yield path.stem, function(path)


def _encode(path: pathlib.Path) -> Iterator[Quantity]:
    tokens = tokenizer(path.parents[1])
    yield from _columns(
        json.loads(path.read_text()),
        {
            "text": lambda case: case["text"],
            "ids": lambda case: tokens.encode(case["text"]).tolist(),
            "tokens": lambda case: [tokens.backend.id_to_token(int(i)) for i in case["ids"]],
            "decoded": lambda case: tokens.decode(case["ids"]),
            "decoded_keep_special": lambda case: tokens.decode(case["ids"], keep_special=True),
        },
    )


def _facts(path: pathlib.Path) -> Iterator[Quantity]:
    tokens, facts = tokenizer(path.parents[1]), json.loads(path.read_text())
    known = ("vocab_size", "special", "sentinel_to_id", "decode_random_ids")
    yield from quantities.unknown(name for name in facts if name not in known)
    yield Quantity("vocab_size", tokens.vocab_size, facts["vocab_size"])
    special = {token: tokens.encode(token).tolist() for token in facts["special"]}
    yield Quantity("special", special, {token: [id] for token, id in facts["special"].items()})
    sentinels = {i: tokens.vocabulary.sentinel_id(int(i)) for i in facts["sentinel_to_id"]}
    yield Quantity("sentinel_to_id", sentinels, facts["sentinel_to_id"])
    yield from _columns(
        facts["decode_random_ids"],
        {
            "ids": lambda case: case["ids"],
            "decoded": lambda case: tokens.decode(case["ids"]),
            "decoded_keep_special": lambda case: tokens.decode(case["ids"], keep_special=True),
        },
        "decode_random_ids/",
    )


def _postprocess(path: pathlib.Path) -> Iterator[Quantity]:
    tokens, recorded = tokenizer(path.parents[1]), json.loads(path.read_text())
    known = ("decode_text", "decode_metadata")
    yield from quantities.unknown(name for name in recorded if name not in known)

    def side(case, name):
        return np.array(case["tensor"])[np.array(case[f"{name}_mask"]) == 0]

    def merged(case):
        return generation.merge(
            side(case, "input").tolist(), side(case, "target").tolist(), tokens.vocabulary
        )

    given = {n: lambda c, n=n: c[n] for n in ("modality", "tensor", "input_mask", "target_mask")}
    yield from _columns(
        recorded.get("decode_text", []),
        given
        | {
            "input_text": lambda case: tokens.decode(side(case, "input"), keep_special=True),
            "target_text": lambda case: tokens.decode(side(case, "target"), keep_special=True),
            "merged_text": lambda case: tokens.decode(merged(case), keep_special=True),
        },
        "decode_text/",
    )

    yield from _columns(
        recorded.get("decode_metadata", []),
        {
            "ids": lambda case: case["ids"],
            "metadata": lambda case: _fields(tokens.decode_content(case["ids"])),
        },
        "decode_metadata/",
    )


def _metadata(path: pathlib.Path) -> Iterator[Quantity]:
    """Entries of `postprocess.json` whose ids are coordinates and [EOS]: no vocabulary needed."""
    ids = {PUBLISHED.eos_id: ""}
    for axis in range(coordinates.NUM_AXES):
        for value in range(PUBLISHED.num_bins):
            ids[PUBLISHED.coordinate_id(axis, value)] = coordinates.token(axis, value)
    yield from _columns(
        json.loads(path.read_text()),
        {
            "ids": lambda case: case["ids"],
            "metadata": lambda case: _fields(" ".join(ids[i] for i in case["ids"]).strip()),
        },
    )


def _merged_spans(path: pathlib.Path) -> Iterator[Quantity]:
    """Masked texts with the generated spans put in, ids only."""
    yield from _columns(
        json.loads(path.read_text()),
        {
            "input_ids": lambda case: case["input_ids"],
            "decoder_ids": lambda case: case["decoder_ids"],
            "merged": lambda case: generation.merge(
                case["input_ids"], case["decoder_ids"], PUBLISHED
            ),
        },
    )


def _fields(content: str) -> Mapping[str, Any]:
    return metadata.Metadata.from_text(
        content, metadata_fields.PUBLISHED, as_published=True
    ).value.values


CHECKS = {
    "encode.json": _encode,
    "vocab_facts.json": _facts,
    "postprocess.json": _postprocess,
    "decode_metadata.json": _metadata,
    "merge_spans.json": _merged_spans,
}


def _columns(
    recorded: list[Mapping[str, Any]],
    functions: Mapping[str, Callable[[Any], Any]],
    prefix: str = "",
) -> Iterator[Quantity]:
    """One quantity per field: ours over all entries, beside what was recorded."""
    fields = {name for case in recorded for name in case}
    yield from quantities.unknown(prefix + name for name in fields - set(functions))
    for name, function in functions.items():
        present = [case for case in recorded if name in case]
        if present:
            found = [function(case) for case in present]
            yield Quantity(prefix + name, found, [case[name] for case in present])
