"""generation/: recorded runs of the sampler, its schedules, filters and span merging."""

import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import fm, recorded, replay
from experiments.parity import quantity as quantities
from experiments.parity.quantity import EXACT, Quantity, Recorded
from fourm_jax.convert import fourm
from fourm_jax.generate import fill_spans, schedule
from fourm_jax.modalities.vocabulary import TextVocabulary
from fourm_jax.models.fourm import FourM
from fourm_jax.ops import filters

FILES = (
    "meta.json",
    "inputs.safetensors",
    "outputs.safetensors",
    "schedules.json",
    "top_k_top_p.safetensors",
    "trunk",
)
TOLERANCE = (1e-8, 1e-6)
TINY_VOCABULARY = TextVocabulary(num_sentinels=recorded.NUM_SENTINELS)


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """The tables, then one case per run."""
    for path in sorted(folder.iterdir()):
        if path.name not in FILES:
            yield path.name, quantities.unknown(["(file)"])
    if (folder / "schedules.json").exists():
        yield "schedules", schedules(json.loads((folder / "schedules.json").read_text()))
    if (folder / "top_k_top_p.safetensors").exists():
        yield "top_k_top_p", filtered(Recorded(quantities.load(folder / "top_k_top_p.safetensors")))
    if not (folder / "meta.json").exists():
        return
    trunk = trunk_of(folder)
    model, params = fourm.load(trunk, overrides=fm.read_overrides(trunk))
    for case in recorded.read_cases(folder, images(trunk, model)):
        yield case.name, run(case, model, params)


def trunk_of(folder: pathlib.Path) -> pathlib.Path:
    """Weights of all runs: in the folder itself, or those of a case of fm/."""
    if (folder / "trunk").is_dir():
        return folder / "trunk"
    return folder.parent / "fm" / json.loads((folder / "meta.json").read_text())["fm_case"]


def images(trunk: pathlib.Path, model: FourM) -> dict[str, np.ndarray]:
    """Image tensors that the inputs of the runs leave out."""
    if not (trunk / "inputs.safetensors").exists():
        return {}
    arrays = quantities.load(trunk / "inputs.safetensors")
    names = [spec.name for spec in model.modalities if spec.kind == "pixels"]
    return {name: arrays[f"{name}/tensor"] for name in names if f"{name}/tensor" in arrays}


def run(case: recorded.Case, model: FourM, params: Any) -> Iterator[Quantity]:
    """Final tokens running freely, and every step from what was recorded before it."""
    compared = {f"final/{name}" for name in replay.not_generated(case, model)}
    for quantity in replay.replay(case, model, params):
        compared.add(quantity.name)
        yield quantity
    yield from quantities.unknown(
        name for name in case.outputs if name.removesuffix("/tensor") not in compared
    )


def filtered(arrays: Recorded) -> Iterator[Quantity]:
    """Top-k, then top-p; removed logits are -inf."""
    logits = jnp.asarray(arrays["logits"])
    for name in arrays:
        if name.startswith("filtered/k") and "_p" in name:
            count, top_p = name.removeprefix("filtered/k").split("_p")
            top_k = float(count) if "." in count else int(count)
            found = filters.filter_top_p(filters.filter_top_k(logits, top_k), float(top_p))
            yield Quantity(name, found, arrays[name], EXACT)
    yield from arrays.unread()


def schedules(tables: dict[str, Any]) -> Iterator[Quantity]:
    """Token counts, temperatures, continued and chained schedules, merged spans."""
    temperatures: dict[str, Callable[..., list[float]]] = {
        "linear_temp_schedule": schedule.linear_temperature,
        "decreasing_temp_schedule": schedule.decreasing_temperature,
        "onex_temp_schedule": functools.partial(schedule.onex_temperature, as_published=True),
    }

    def counts(rule: str, num_steps: str, num_tokens: str) -> list[int]:
        return schedule.token_counts(rule, int(num_steps), int(num_tokens), as_published=True)

    for name, expected in tables.items():
        rule, *arguments = name.split("/")
        if rule in ("cosine_schedule", "linear_schedule"):
            yield Quantity(name, counts(rule.removesuffix("_schedule"), *arguments), expected)
        elif rule in temperatures:
            found = temperatures[rule](counts(*arguments[:3]), *map(float, arguments[3:]))
            yield Quantity(name, found, expected, TOLERANCE)
        elif rule == "continue_schedule":
            left = schedule.continue_tokens(counts(*arguments[:3]), int(arguments[3]))
            yield Quantity(name, left, expected)
        elif rule == "chained":
            for number, case in enumerate(expected):
                yield from chained(f"{name}/{number}", case)
        elif rule == "merge_span_masking":
            merged = [merge(case["input_ids"], case["decoder_ids"]) for case in expected]
            yield Quantity(name, merged, [case["merged"] for case in expected])
        else:
            yield from quantities.unknown([name])


def chained(name: str, case: dict[str, Any]) -> Iterator[Quantity]:
    """Every field of every step of a chained schedule."""
    given = case["args"]
    columns = {
        "name": "target_domains",
        "scheme": "autoregression_schemes",
        "num_tokens": "tokens_per_target",
        "num_steps": "decoding_steps",
        "tokens": "token_decoding_schedules",
        "temperature": "temps",
        "temperatures": "temp_schedules",
        "guidance": "cfg_scales",
    }
    rows = zip(*(given[theirs] for theirs in columns.values()), strict=True)
    targets = []
    for row in rows:
        fields = dict(zip(columns, row, strict=True))
        fields |= {"num_steps": fields["num_steps"] or 1, "tokens": fields["tokens"] or "linear"}
        fields |= {"num_tokens": fields["num_tokens"] or 0}
        targets.append(schedule.Target(**fields))
    steps = schedule.build_chained_schedule(
        given["cond_domains"],
        targets,
        grow_conditioning=given["cfg_grow_conditioning"],
        as_published=True,
    )
    expected = case["schedule"]
    temperatures = [step["temperature"] for step in expected]
    yield Quantity(f"{name}/temperature", [s.temperature for s in steps], temperatures, TOLERANCE)
    found = [[s.target, s.scheme, s.num_tokens, s.guidance, list(s.guided)] for s in steps]
    names = ("target_domain", "scheme", "num_tokens", "cfg_scale", "cfg_cond_domains")
    recorded_steps = [
        [step[n] or 0 if n == "num_tokens" else step[n] for n in names] for step in expected
    ]
    yield Quantity(f"{name}/steps", found, recorded_steps)


def merge(
    ids: Sequence[int], generated: Sequence[int], vocabulary: TextVocabulary = TINY_VOCABULARY
) -> list[int]:
    """A masked text with the generated spans put in."""
    width = 64 * -(-(len(ids) + len(generated)) // 64)  # few widths, few programs
    rows = [np.resize([*row, *[0] * width], (1, width)) for row in (ids, generated)]
    known, generated_known = (np.arange(width)[None] < len(row) for row in (ids, generated))
    merged, valid = _merge(
        rows[0], known, rows[1], generated_known, length=width, vocabulary=vocabulary
    )
    return np.asarray(merged)[0, np.asarray(valid)[0]].tolist()


_merge = jax.jit(fill_spans.merge_spans, static_argnames=("length", "vocabulary"))
