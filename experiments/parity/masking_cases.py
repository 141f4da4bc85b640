"""Recorded masking decisions as plain lists of tokens: what our masking is compared with.

Texts become ids, and the published buffers with their masks (True = not used) become the tokens
in them that are used. A recording may hold {"ids", "chunk"} in place of a text, which then needs
no vocabulary file.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fourm_jax.modalities import registry
from fourm_jax.tokenizers.text import TextTokenizer

PARTS = (
    "simple_span_masking",
    "chunk_span_masking",
    "sequence_mask",
    "sequence_emb_mask_span",
    "token_budgets",
    "image_mask",
    "adapt_decoder_attention_mask",
    "transfer_masking",
)


Text = str | list[str] | Mapping[str, list[int]]
UNCUT = 1 << 20  # longer than any text
LoadText = Callable[[], TextTokenizer]


def convert(recorded: Mapping[str, Any], text: LoadText) -> dict[str, Any]:
    """Parts of the recording that are there; `text` loads the tokenizer where there are texts."""
    cases = {name: recorded[name] for name in PARTS if name in recorded}
    readers = {
        "image_mask": image_case,
        "sequence_mask": lambda case: text_case(case, text),
        "sequence_emb_mask_span": vector_case,
    }
    for name, read in readers.items():
        if name in cases:
            cases[name] = [read(case) for case in cases[name]]
    if "transfer_masking" in cases:
        cases["transfer_masking"] = transfer_case(cases["transfer_masking"], text)
    return cases


def encode(value: Text, max_tokens: int, text: LoadText) -> tuple[list[int], list[int]]:
    """Ids with [EOS], and chunks: a list of strings is one chunk each, whole chunks are cut."""
    if isinstance(value, Mapping):
        return value["ids"], value.get("chunk", list(range(len(value["ids"]))))
    chunked = isinstance(value, list)
    ids, chunk = text().encode_sequence(value, max_tokens=UNCUT, chunked=chunked)
    # Cut as published, where an over-long text loses its [EOS].
    num_fitting = np.searchsorted(np.cumsum(np.bincount(chunk)), max_tokens, side="right")
    fits = chunk < num_fitting
    return ids[fits].tolist(), chunk[fits].tolist()


def image_case(case: Mapping[str, Any]) -> dict[str, Any]:
    """Order of the cells, budgets, and the cells on either side."""
    return {  # upstream gives cell i the rank ids_shuffle[i]; `order` lists the cells by rank
        "order": np.argsort(case["ids_shuffle"]).tolist(),
        "budgets": [case["input_budget"], case["target_budget"]],
        "inputs": used(case["input_mask"]),
        "targets": used(case["target_mask"]),
    }


def text_case(case: Mapping[str, Any], text: LoadText) -> dict[str, Any]:
    """Ids, which of them are masked, budgets, the drawn sentinel, and the ids on either side."""
    ids, chunk = encode(case["sequence"], case["max_tokens"], text)
    choice = case["sentinel_choice_randint"]
    return {
        "ids": ids,
        "masked": [case["final_masked"][c] for c in chunk],
        "input_budget": case["input_budget"],
        "target_budget": case["target_budget"],
        "num_choices": choice[0] if choice else None,
        "chosen": choice[1] if choice else 0,
        "inputs": [case["tensor"][i] for i in used(case["input_mask"])],
        "targets": [case["tensor"][i] for i in used(case["target_mask"])],
    }


def vector_case(case: Mapping[str, Any]) -> dict[str, Any]:
    """Which vector stands in each visible place, 1-based; 0 where a span became a zero vector."""
    vectors = [np.zeros(len(case["emb"][0])).tolist(), *case["emb"]]
    shown = [vectors.index(case["tensor"][i]) for i in used(case["input_mask"])]
    return {"masked": case["final_masked"], "budget": case["input_budget"], "inputs": shown}


def transfer_case(case: Mapping[str, Any], text: LoadText) -> dict[str, Any]:
    """Ids of the texts, and per modality what is shown and what is asked for."""
    sides = {
        side: {
            name: [entry["tensor"][i] for i in used(entry[side])]
            if "tensor" in entry
            else used(entry[side])
            for name, entry in case["result"].items()
        }
        for side in ("input_mask", "target_mask")
    }
    specs = {s.name: s for s in registry.resolve("fourm", list(case["sample"]))}
    return {
        "inputs": case["inputs"],
        "outputs": case["targets"],
        "ids": {n: encode(case["sample"][n], s.max_tokens, text)[0] for n, s in specs.items()},
        "shown": {name: sides["input_mask"][name] for name in case["inputs"]},
        "asked": {name: sides["target_mask"][name] for name in case["targets"]},
    }


def used(mask: list[int]) -> list[int]:
    """Where a published mask is False."""
    return [i for i, masked in enumerate(mask) if not masked]


def pool(
    samples: Sequence[Mapping[str, Any]], max_tokens: Mapping[str, int], text: LoadText
) -> dict[str, dict[str, np.ndarray]]:
    """Texts of many samples as a batch: `ids`, `length`, `chunk`; of vectors only `length`."""
    batch = {}
    for name in samples[0]:
        size, values = max_tokens[name], [sample[name] for sample in samples]
        if "num_embeddings" in values[0]:
            length = [value["num_embeddings"] for value in values]
            batch[name] = {"length": np.minimum(length, size)}
            continue
        ids = np.zeros((len(values), size), np.int32)
        chunk = np.tile(np.arange(size), (len(values), 1))
        lengths = np.zeros(len(values), np.int32)
        for row, value in enumerate(values):
            own_ids, own_chunks = encode(value, size, text)
            lengths[row] = len(own_ids)
            ids[row, : len(own_ids)], chunk[row, : len(own_ids)] = own_ids, own_chunks
        batch[name] = {"ids": ids, "length": lengths, "chunk": chunk}
    return batch
