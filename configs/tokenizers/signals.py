"""Signals that tokenizers of several data sets read (fields of `tokenizers.signal.Signal`)."""

RGB = {
    "dtype": "uint8",
    "num_channels": 3,
    "low": 0.0,
    "high": 255.0,
    "mean": 127.5,
    "std": 64.0,
}
EDGE = {"axes": "hw", "dtype": "uint8", "kind": "binary", "low": 0.0, "high": 255.0}
