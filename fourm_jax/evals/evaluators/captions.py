"""Captions of records against their true ones: BLEU-4, CIDEr, exact matches."""

from fourm_jax.evals.evaluators import any_to_any

MEASURES = ("bleu", "cider", "exact_match")


def make(
    condition: tuple[str, ...] = ("rgb",), target: str = "caption", num_train: int = 2_048
) -> any_to_any.AnyToAny:
    """Return `any_to_any` of one text, judged as captions are."""
    return any_to_any.make(
        condition=condition, targets=(target,), measures=MEASURES, num_train=num_train
    )
