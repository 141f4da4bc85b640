"""Data sets of ours that `tfds build` writes; nothing in the package imports them."""
