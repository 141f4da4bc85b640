"""Any-to-any massively multimodal masked modelling in JAX (4M and 4M-21)."""
