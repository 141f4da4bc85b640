"""How many of its codes every tokenizer uses on the records that are evaluated."""

import dataclasses

import numpy as np

from fourm_jax.evals import evaluator
from fourm_jax.evals.evaluator import Context, Findings
from fourm_jax.evals.measures import codebook_usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebooks:
    """Share of the codes that occur, and perplexity of their frequencies, per grid and vector."""

    def check(self, context: Context) -> None:
        """Any records will do."""
        del context

    def __call__(self, context: Context) -> Findings:
        """Count the tokens of the records, which no trunk reads."""
        tokens = context.test().tokens
        tasks = {}
        for spec in context.generator.model.modalities:
            if spec.kind not in ("grid", "global") or spec.name not in tokens:
                continue
            entry = tokens[spec.name]
            ids = np.asarray(entry["ids"])[np.asarray(entry["present"], bool)]
            usage = codebook_usage.usage(ids, spec.vocab_size)
            perplexity = codebook_usage.perplexity(ids, spec.vocab_size)
            also = [evaluator.entry("perplexity", perplexity, ids.size, higher_is_better=True)]
            tasks[spec.name] = evaluator.entry(
                "codebook_usage", usage, ids.size, higher_is_better=True, also=also
            )
        return Findings(tasks=tasks)


def make() -> Codebooks:
    """Return the evaluator."""
    return Codebooks()
