"""Span masking of texts alone, from given random bits."""

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.masking import span_targets
from fourm_jax.utils import hardware


def arguments(num_texts=6, num_tokens=40, num_tries=16):
    keys = jax.random.split(jax.random.key(0), 2)
    return (
        jax.random.bits(keys[0], (num_texts, num_tokens)),
        jax.random.bits(keys[1], (2, num_tries)),
        jnp.array([0.0, 0.3, 0.6, 0.9, 1.0, 1.0]),  # keep probability
        jnp.array([40, 9, 3, 12, 40, 1]),  # budget
        jnp.array([40, 40, 25, 40, 0, 33]),  # length
        jnp.tile(jnp.arange(num_tokens) // 2, (num_texts, 1)),  # chunks of two tokens
    )


def test_an_accelerator_masks_the_tokens_that_a_cpu_masks(monkeypatch):
    masked = []
    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(hardware, "platform", lambda platform=platform: platform)
        masked.append(span_targets.choose_masked(*arguments()))
    np.testing.assert_array_equal(*masked)
    *_, budget, length, _ = arguments()
    assert masked[0][0].sum() == 40  # nothing of it is kept
    assert (span_targets.find_spans(masked[0], length).num_inputs <= budget).all()


def test_an_accelerator_masks_texts_without_a_loop(monkeypatch):
    def entries(bits, tries, keep_prob, budget, length, chunk):
        masked = span_targets.choose_masked(bits, tries, keep_prob, budget, length, chunk)
        spans, first = span_targets.find_spans(masked, length), jnp.zeros(6, jnp.int32)
        row, entry = jnp.arange(6), jnp.zeros(6, jnp.int32)
        return span_targets.input_entry(spans, chunk, first, row, entry)

    def rounds(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("scan", "while"):
                length = equation.params.get("length", float("inf"))
                yield length / equation.params.get("unroll", 1)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from rounds(inner)

    assert max(rounds(jax.make_jaxpr(entries)(*arguments()).jaxpr)) > 1
    jax.clear_caches()
    monkeypatch.setattr(hardware, "platform", lambda: "gpu")
    assert max(rounds(jax.make_jaxpr(entries)(*arguments()).jaxpr), default=0) <= 1
