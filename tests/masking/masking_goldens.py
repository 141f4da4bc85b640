"""Cuts the recorded masking cases down to those that ship: no vocabulary needed to read them.

python -m tests.ops.masking_goldens FULL_GOLDEN_DIRECTORY   # writes tests/goldens/masking
"""

import functools
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from experiments.parity import masking_cases
from experiments.parity import text as text_cases
from tests import golden_cases

QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
LONGEST = 30  # tokens of a text that ships


def encoded(value, max_tokens: int, text) -> dict[str, list[int]]:
    """A text as ids; chunks only where they are not single tokens."""
    ids, chunk = masking_cases.encode(value, max_tokens, text)
    return {"ids": ids} if chunk == list(range(len(ids))) else {"ids": ids, "chunk": chunk}


def decisions(recorded: Mapping[str, Any], text) -> dict[str, Any]:
    """Deterministic cases, texts as ids; long texts stay in the full set."""
    sequences = [
        {**case, "sequence": encoded(case["sequence"], case["max_tokens"], text)}
        for case in recorded["sequence_mask"]
    ]
    moved = recorded["transfer_masking"]
    sizes = {"caption": 256, "det": 256}
    sample = {name: encoded(moved["sample"][name], size, text) for name, size in sizes.items()}
    return {
        **{name: recorded[name] for name in masking_cases.PARTS},
        "sequence_mask": [c for c in sequences if len(c["sequence"]["ids"]) < LONGEST],
        "transfer_masking": {**moved, "sample": sample},
    }


def cut(statistics: Any) -> Any:
    """Five quantiles and four decimals of every distribution."""
    if isinstance(statistics, dict) and "std_err_of_mean" in statistics:
        return {
            "mean": round(statistics["mean"], 4),
            "var": round(statistics["var"], 4),
            "std_err_of_mean": round(statistics["std_err_of_mean"], 5),
            "frac_zero": statistics["frac_zero"],
            "n": statistics["n"],
            "quantiles": {q: statistics["quantiles"][q] for q in QUANTILES},
        }
    if isinstance(statistics, dict):
        return {key: cut(value) for key, value in statistics.items()}
    return [cut(value) for value in statistics] if isinstance(statistics, list) else statistics


def main(full: pathlib.Path) -> None:
    text = functools.cache(lambda: text_cases.tokenizer(full))
    source, target = full / "masking", golden_cases.shipped("masking")

    def write(name: str, value: Any) -> None:
        (target / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")

    name = "deterministic.json"
    write(name, decisions(json.loads((source / name).read_text()), text))
    for path in sorted(source.glob("stats_*.json")):
        stats = json.loads(path.read_text())
        write(path.name, cut(stats))
        name = path.name.replace("stats_", "pool_")
        samples = json.loads((source / name).read_text())
        write(
            name,
            [
                {
                    modality: value
                    if "num_embeddings" in value
                    else encoded(value, stats["max_tokens"][modality], text)
                    for modality, value in sample.items()
                }
                for sample in samples
            ],
        )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
