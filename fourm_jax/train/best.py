"""Which number says that a checkpoint is among the best, and how often it is measured."""

from collections.abc import Mapping

import ml_collections

from fourm_jax.utils import errors

LOSS = "loss"  # what counts where a config names nothing
OF_EVAL_EVERY = (LOSS, "accuracy")  # first parts of what `train.held_out` measures
DIRECTIONS = ("lowest", "highest")


def check(config: ml_collections.ConfigDict) -> None:
    """Check `keep_best`, `best_metric` and `best_is`.

    What the evaluators of a transfer or tokenizer measure is known once they ran
    (`held_out_loss`).

    Raises:
      ValueError: a metric that nothing measures, or nothing but after the last step; an unknown
        direction.
    """
    name, evals = metric(config), config.get("evals") or {}
    head = name.partition("/")[0]
    if config.get("best_is", DIRECTIONS[0]) not in DIRECTIONS:
        raise ValueError(errors.unknown_value("best_is", config.best_is, DIRECTIONS))
    if config.task == "fourm" and head not in (*evals, *OF_EVAL_EVERY):
        raise ValueError(errors.unknown_value("evaluator in best_metric", head, evals))
    if config.get("keep_best", 0) and not period(config):
        key = f"evals.{head}.every" if head in evals else "eval_every"
        raise ValueError(
            f"keep_best needs held-out losses: {key} is 0, so that best_metric {name!r} is "
            "measured after the last step alone"
        )


def metric(config: ml_collections.ConfigDict) -> str:
    """What `keep_best` follows, as evaluators name it."""
    return config.get("best_metric", LOSS)


def period(config: ml_collections.ConfigDict) -> int:
    """Every how many steps that is measured; 0: after the last one alone."""
    head, evals = metric(config).partition("/")[0], config.get("evals") or {}
    return int(evals[head].get("every", 0)) if head in evals else config.eval_every


def held_out_loss(
    config: ml_collections.ConfigDict, values: Mapping[str, float], step: int
) -> float | None:
    """The number of an evaluation, its sign such that lower is better; None where it is not due.

    Args:
      values: of the evaluators after `step` steps, named "eval/<name>".

    Raises:
      ValueError: it is due, and was not measured; names what was.
    """
    name, every = metric(config), period(config)
    if f"eval/{name}" in values:
        value = values[f"eval/{name}"]
        return -value if config.get("best_is") == "highest" else value
    due = step == config.num_steps or (every > 0 and step % every == 0)
    if config.get("keep_best", 0) and due:
        measured = [one.removeprefix("eval/") for one in values]
        raise ValueError(errors.unknown_value("best_metric of keep_best", name, measured))
    return None
