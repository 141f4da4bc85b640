"""Operations of generation, counted by hand as those of a training step are (`train.flops`).

Two per multiply-add of trunk, context projection and the head of the target, for the tokens that
are known and those that are still open: slots that hold nothing are not the model's work.
"""

from collections.abc import Collection, Mapping, Sequence

from fourm_jax.generate.schedule import Step
from fourm_jax.models.fourm import FourM
from fourm_jax.train import flops


def of_chain(
    model: FourM, known: Mapping[str, int], steps: Sequence[Step], lengths: Mapping[str, int]
) -> float:
    """Operations of one sample.

    Args:
      known: by condition, the number of its tokens.
      steps: passes over grids, and whole sequences, in their order.
      lengths: by target, the tokens that are written. Those of a sequence are counted as if they
        were decoded at once.
    """
    seen, left, total = dict(known), dict(lengths), 0.0
    for step in steps:
        for hidden in ((),) if step.guidance == 1 else ((), step.guided):
            num_inputs = _num_inputs(model, seen, hidden)
            total += _encoding(model, num_inputs)
            total += _decoding(model, num_inputs, step.target, left[step.target])
        written = step.num_tokens or left[step.target]
        seen[step.target] = seen.get(step.target, 0) + written
        left[step.target] -= written
    return total


def of_prediction(model: FourM, known: Mapping[str, int], targets: Mapping[str, int]) -> float:
    """Operations of one sample whose targets, of so many tokens each, share one encoder pass."""
    num_inputs = _num_inputs(model, known)
    decoders = (_decoding(model, num_inputs, name, size) for name, size in targets.items())
    return _encoding(model, num_inputs) + sum(decoders)


def _num_inputs(model: FourM, seen: Mapping[str, int], hidden: Collection[str] = ()) -> int:
    return sum(seen[name] for name in seen if name in model.inputs and name not in hidden)


def _encoding(model: FourM, num_inputs: int) -> float:
    return flops.encoder_flops(model, num_inputs) + flops.memory_flops(model, num_inputs)


def _decoding(model: FourM, num_inputs: int, target: str, num_targets: int) -> float:
    (vocab_size,) = (spec.vocab_size for spec in model.modalities if spec.name == target)
    return flops.decoder_flops(model, num_inputs, num_targets, vocab_size)
