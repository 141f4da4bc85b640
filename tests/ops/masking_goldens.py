"""Masking cases recorded from the published code, as numbers; also cuts them down to ship them.

python -m tests.ops.masking_goldens FULL_GOLDEN_DIRECTORY   # writes tests/goldens/masking
"""

import json
import pathlib
import sys

import numpy as np
import tokenizers

from tests import golden_cases

CONFIGS = ("mod7_a0.5", "mod7_capbias", "mod21_capT5bias")
EOS = 3
SHIPPED_QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")


def load(full: bool) -> tuple[dict, dict, dict]:
    """Deterministic cases, statistics and pools: {config: ...} each; skips without the full set."""
    if full:
        return convert(golden_cases.directory("masking").parent)
    directory = golden_cases.shipped("masking")
    with np.load(directory / "pool.npz") as arrays:
        pools = {config: {} for config in CONFIGS}
        for key in arrays.files:
            config, modality, field = key.split("/")
            pools[config].setdefault(modality, {})[field] = arrays[key].astype(np.int32)
    cases, stats = (json.loads((directory / f"{n}.json").read_text()) for n in ("cases", "stats"))
    return cases, stats, pools


def convert(full: pathlib.Path) -> tuple[dict, dict, dict]:
    """Read the full set: texts become ids, buffers and masks become lists of tokens."""
    text = tokenizers.Tokenizer.from_file(
        str(full / "text" / "text_tokenizer_4m_wordpiece_30k.json")
    )
    recorded = json.loads((full / "masking" / "deterministic.json").read_text())
    cases = {name: recorded[name] for name in ("simple_span_masking", "token_budgets")}
    cases["chunk_span_masking"] = recorded["chunk_span_masking"]
    cases["adapt_decoder_attention_mask"] = recorded["adapt_decoder_attention_mask"]
    cases["image_mask"] = [_image_case(case) for case in recorded["image_mask"]]
    cases["sequence_mask"] = [_text_case(case, text) for case in recorded["sequence_mask"]]
    cases["embedding_mask"] = [_vector_case(case) for case in recorded["sequence_emb_mask_span"]]
    cases["transfer"] = _transfer_case(recorded["transfer_masking"], text)
    stats, pools = {}, {}
    for config in CONFIGS:
        stats[config] = json.loads((full / "masking" / f"stats_{config}.json").read_text())
        samples = json.loads((full / "masking" / f"pool_{config}.json").read_text())
        pools[config] = _pool(samples, stats[config]["max_tokens"], text)
    return cases, stats, pools


def encode(value: str | list[str], max_tokens: int, text) -> tuple[list[int], list[int]]:
    """Ids with [EOS], and chunks: a list of strings is one chunk each, whole chunks are cut."""
    pieces = [text.encode(v).ids for v in (value if isinstance(value, list) else [value])]
    pieces.append([EOS])
    if not isinstance(value, list):
        ids = [i for piece in pieces for i in piece][:max_tokens]
        return ids, list(range(len(ids)))
    ids, chunk = [], []
    for i, piece in enumerate(pieces):
        if len(ids) + len(piece) > max_tokens:
            break
        ids += piece
        chunk += [i] * len(piece)
    return ids, chunk


def _used(mask) -> list[int]:
    return [i for i, masked in enumerate(mask) if not masked]


def _image_case(case) -> dict:
    return {  # upstream gives cell i the rank ids_shuffle[i]; `order` lists the cells by rank
        "order": np.argsort(case["ids_shuffle"]).tolist(),
        "budgets": [case["input_budget"], case["target_budget"]],
        "inputs": _used(case["input_mask"]),
        "targets": _used(case["target_mask"]),
    }


def _text_case(case, text) -> dict:
    ids, chunk = encode(case["sequence"], case["max_tokens"], text)
    choice = case["sentinel_choice_randint"]
    return {
        "ids": ids,
        "masked": [case["final_masked"][c] for c in chunk],
        "input_budget": case["input_budget"],
        "target_budget": case["target_budget"],
        "num_choices": choice[0] if choice else None,
        "chosen": choice[1] if choice else 0,
        "inputs": [case["tensor"][i] for i in _used(case["input_mask"])],
        "targets": [case["tensor"][i] for i in _used(case["target_mask"])],
    }


def _vector_case(case) -> dict:
    """Which vector stands in each visible place, 1-based; 0 where a span became a zero vector."""
    vectors = [np.zeros(len(case["emb"][0])).tolist(), *case["emb"]]
    shown = [vectors.index(case["tensor"][i]) for i in _used(case["input_mask"])]
    return {"masked": case["final_masked"], "budget": case["input_budget"], "inputs": shown}


def _transfer_case(case, text) -> dict:
    size = {"caption": 256, "det": 256}
    used = {
        side: {
            name: [entry["tensor"][i] for i in _used(entry[side])]
            if "tensor" in entry
            else _used(entry[side])
            for name, entry in case["result"].items()
        }
        for side in ("input_mask", "target_mask")
    }
    return {
        "inputs": case["inputs"],
        "outputs": case["targets"],
        "ids": {name: encode(case["sample"][name], size[name], text)[0] for name in size},
        "shown": {name: used["input_mask"][name] for name in case["inputs"]},
        "asked": {name: used["target_mask"][name] for name in case["targets"]},
    }


def _pool(samples, max_tokens, text) -> dict:
    pool = {}
    for name in samples[0]:
        size = max_tokens[name]
        if name == "t5_caption":
            length = [sample[name]["num_embeddings"] for sample in samples]
            pool[name] = {"length": np.minimum(length, size)}
            continue
        ids = np.zeros((len(samples), size), np.int32)
        chunk = np.tile(np.arange(size), (len(samples), 1))
        length = np.zeros(len(samples), np.int32)
        for row, sample in enumerate(samples):
            values, chunks = encode(sample[name], size, text)
            length[row] = len(values)
            ids[row, : len(values)] = values
            chunk[row, : len(values)] = chunks
        pool[name] = {"ids": ids, "length": length, "chunk": chunk}
    return pool


def _cut(statistics):
    """Keep what the tests read: no variances of budgets, five quantiles, four decimals."""
    if isinstance(statistics, dict) and "std_err_of_mean" in statistics:
        kept = {q: statistics["quantiles"][q] for q in SHIPPED_QUANTILES}
        return {
            "mean": round(statistics["mean"], 4),
            "var": round(statistics["var"], 4),
            "std_err_of_mean": round(statistics["std_err_of_mean"], 5),
            "frac_zero": statistics["frac_zero"],
            "n": statistics["n"],
            "quantiles": kept,
        }
    if isinstance(statistics, dict):
        return {key: _cut(value) for key, value in statistics.items()}
    return [_cut(value) for value in statistics] if isinstance(statistics, list) else statistics


def main(full: pathlib.Path) -> None:
    cases, stats, pools = convert(full)
    directory = golden_cases.shipped("masking")
    cases["sequence_mask"] = [
        case for case in cases["sequence_mask"] if len(case["ids"]) < 30
    ]  # long captions stay in the full set
    for name, value in (("cases", cases), ("stats", _cut(stats))):
        (directory / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")
    arrays = {
        f"{config}/{modality}/{field}": array.astype(np.uint16)
        for config, pool in pools.items()
        for modality, fields in pool.items()
        for field, array in fields.items()
        if field != "chunk" or modality == "metadata"
    }
    np.savez_compressed(directory / "pool.npz", **arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
