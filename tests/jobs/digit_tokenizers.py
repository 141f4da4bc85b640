"""Tokenizers for the digits: random weights, learned words."""

from fourm_jax.data.sources import digits
from fourm_jax.tokenizers import text
from tests.jobs import untrained

SIGNALS = {
    "rgb": {"axes": "hwc", "dtype": "uint8", "num_channels": 3, "low": 0, "high": 255, "std": 255},
    "edge": {"axes": "hw", "dtype": "uint8", "kind": "binary", "low": 0, "high": 255},
}


def save(directory):
    """Save them in a folder; return it."""
    for name, signal in SIGNALS.items():
        untrained.save(directory, name, signal)
    captions = [f"a handwritten {word}" for word in digits.WORDS]
    text.TextTokenizer.train(captions, vocab_size=4608).save(directory / "text")
    return directory
