"""Any-to-any generation: `Generator` for raw signals, `chain.run` for tokens."""

from fourm_jax.generate.generator import Generated, Generator

__all__ = ["Generated", "Generator"]
