"""How many tokens each generation step writes, at which temperature, under which guidance."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fourm_jax.utils.errors import unknown_value

SCHEMES = ("maskgit", "roar", "autoregressive")
TOKEN_SCHEDULES = ("cosine", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of the trunk over one target (autoregressive: one whole sequence).

    Attributes:
      target: name of the modality to write.
      scheme: "maskgit" (keep the most confident of all open positions), "roar" (predict a random
        subset of them) or "autoregressive" (sequences).
      num_tokens: positions written; 0 for sequences, which end by themselves.
      temperature: of the softmax; 0 takes the most likely token.
      guidance: weight of the conditions; 1 = plain conditional prediction. A tuple holds one
        weight per condition of a multi-guided run.
      guided: names of the conditions that the unconditional pass does not see.
    """

    target: str
    scheme: str
    num_tokens: int = 0
    temperature: float = 1.0
    guidance: float | tuple[float, ...] = 1.0
    guided: tuple[str, ...] = ()

    def __post_init__(self):
        if self.scheme not in SCHEMES:
            raise ValueError(
                f"step for {self.target!r}: {unknown_value('scheme', self.scheme, SCHEMES)}"
            )
        if self.num_tokens < 0:
            raise ValueError(f"step for {self.target!r}: {self.num_tokens} tokens, allowed: >= 0")
        for name in ("guidance", "temperature"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(
                    f"step for {self.target!r}: {name} {getattr(self, name)} is not finite"
                )


def cosine_tokens(num_steps: int, num_tokens: int, as_published: bool = False) -> list[int]:
    """Few, many, few: differences of 0.5 (1 + cos(pi i / n)), e.g. (8, 784) -> 30, 85, 127, ...

    The published rule (`as_published`) rounds every difference and puts the rest into the last
    step, which can be negative, and leaves steps that write nothing; otherwise the sums are rounded
    instead and empty steps are left out.
    """
    fractions = 0.5 * (1 - np.cos(np.pi * np.arange(num_steps + 1) / num_steps))
    if as_published:
        counts = np.round(num_tokens * np.diff(fractions)).astype(int)
        counts[-1] += num_tokens - counts.sum()
        return counts.tolist()
    counts = np.diff(np.round(num_tokens * fractions).astype(int))
    return [count for count in counts.tolist() if count]


def linear_tokens(num_steps: int, num_tokens: int) -> list[int]:
    """Near-equal counts, larger ones first, none of them 0: (8, 196) -> 25 ×4, 24 ×4."""
    base, rest = divmod(num_tokens, num_steps)
    return [base + (i < rest) for i in range(num_steps) if base + (i < rest)]


def token_counts(
    rule: str, num_steps: int, num_tokens: int, *, as_published: bool = False
) -> list[int]:
    """Tokens that every step writes, by "cosine" or "linear".

    Raises:
      ValueError: unknown rule.
    """
    if rule == "cosine":
        return cosine_tokens(num_steps, num_tokens, as_published)
    if rule == "linear":
        return linear_tokens(num_steps, num_tokens)
    raise ValueError(unknown_value("token schedule", rule, TOKEN_SCHEDULES))


def continue_tokens(counts: Sequence[int], num_done: int) -> list[int]:
    """What is left of a token schedule once `num_done` tokens are written (in-painting)."""
    left = []
    for count, total in zip(counts, itertools.accumulate(counts), strict=True):
        if total > num_done:
            left.append(min(count, total - num_done))
    return left


def constant_temperature(counts: Sequence[int], temperature: float) -> list[float]:
    """The same temperature at every step."""
    return [temperature] * len(counts)


def linear_temperature(counts: Sequence[int], temperature: float) -> list[float]:
    """`temperature` times the share of tokens still open before the step, at least 1e-9."""
    before = np.cumsum(counts) - counts
    return np.maximum(temperature * (1 - before / sum(counts)), 1e-9).tolist()


def decreasing_temperature(
    counts: Sequence[int], temperature: float, min_temperature: float
) -> list[float]:
    """From `temperature` to `min_temperature` by the share of tokens open after the step."""
    after = 1 - np.cumsum(counts) / sum(counts)
    return (min_temperature + (temperature - min_temperature) * after).tolist()


def onex_temperature(
    counts: Sequence[int],
    temperature: float,
    min_temperature: float,
    power: float,
    as_published: bool = False,
) -> list[float]:
    """Fall quickly, like 1/x^power, towards `min_temperature`.

    The curve has one value per token. The published rule (`as_published`) reads it at the number of
    the *step*; otherwise it is read at the number of tokens already written.
    """
    total = sum(counts)
    curve = np.linspace(1, 100, total) ** -power
    curve = (curve - curve.min()) / max(curve.max() - curve.min(), 1e-12)
    after = 1 - np.cumsum(counts) / total
    at = np.arange(len(counts)) if as_published else np.cumsum(counts) - counts
    at, after = at[at < total], after[at < total]
    return (min_temperature + (temperature - min_temperature) * curve[at] * after).tolist()


def temperatures(
    rule: str, counts: Sequence[int], temperature: float, as_published: bool = False
) -> list[float]:
    """Temperature of every step, by "constant", "linear" or "onex:<minimum>:<power>"."""
    name, *arguments = rule.split(":")
    if name == "constant" and not arguments:
        return constant_temperature(counts, temperature)
    if name == "linear" and not arguments:
        return linear_temperature(counts, temperature)
    if name == "onex" and len(arguments) == 2:
        minimum, power = map(float, arguments)
        return onex_temperature(counts, temperature, minimum, power, as_published)
    raise ValueError(
        f"unknown temperature schedule {rule!r}, allowed: constant, linear, onex:<minimum>:<power>"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """How one modality of a chain is generated; defaults suit any grid in a few steps.

    Attributes:
      name: the modality.
      scheme: see `Step`.
      num_tokens: open positions of a grid; ignored for sequences.
      num_steps: passes over them; ignored for sequences.
      tokens: "cosine" or "linear" (ROAR is always linear).
      temperature, temperatures: start value and rule, see `temperatures`.
      guidance: see `Step`.
      top_k, top_p: filters of the draws, see `grids.Sampling`; 0: none.
    """

    name: str
    scheme: str
    num_tokens: int = 0
    num_steps: int = 1
    tokens: str = "linear"
    temperature: float = 1.0
    temperatures: str = "constant"
    guidance: float | tuple[float, ...] = 1.0
    top_k: int | float = 0
    top_p: float = 0.0


def build_chained_schedule(
    conditions: Iterable[str],
    targets: Iterable[Target],
    *,
    grow_conditioning: bool = True,
    as_published: bool = False,
) -> tuple[Step, ...]:
    """Chain targets, each one a condition of the following ones (docs/published.md#schedules).

    Args:
      conditions: names that guidance takes away from the unconditional pass.
      targets: in the order of decoding.
      grow_conditioning: a finished target joins the guided conditions.
      as_published: a finished *sequence* does not join them, and counts and temperatures follow
        the published rules.

    Raises:
      ValueError: unknown schedule, a grid without tokens or steps.
    """
    guided, steps = tuple(conditions), []
    for target in targets:
        common: dict[str, Any] = {"target": target.name, "scheme": target.scheme, "guided": guided}
        if target.scheme == "autoregressive":
            steps.append(Step(temperature=target.temperature, guidance=target.guidance, **common))
        else:
            counts = _counts(target, as_published)
            rule = temperatures(target.temperatures, counts, target.temperature, as_published)
            steps += [
                Step(num_tokens=count, temperature=value, guidance=target.guidance, **common)
                for count, value in zip(counts, rule, strict=False)
            ]
        if grow_conditioning and not (as_published and target.scheme == "autoregressive"):
            guided += (target.name,)
    return tuple(steps)


def _counts(target: Target, as_published: bool) -> list[int]:
    if target.num_tokens < 1 or target.num_steps < 1:
        raise ValueError(
            f"target {target.name!r}: {target.num_tokens} tokens in {target.num_steps} steps, "
            "both must be at least 1"
        )
    rule = "linear" if target.scheme == "roar" else target.tokens
    return token_counts(rule, target.num_steps, target.num_tokens, as_published=as_published)
