"""Any-to-any massively multimodal masked modelling in JAX (4M and 4M-21)."""

__version__ = "0.1.0"


def load(source, **options):
    """Load a trunk or a tokenizer by path or Hub id; see `fourm_jax.convert.checkpoint.load`.

    >>> trunk = fourm_jax.load("EPFL-VILAB/4M-21_B")  # doctest: +SKIP
    >>> features = trunk.model.apply({"params": trunk.params}, tokens)  # doctest: +SKIP
    """
    from fourm_jax.convert import checkpoint  # jax loads only when something is loaded

    return checkpoint.load(source, **options)
