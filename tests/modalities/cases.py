"""Text and recorded cases that the tests of the text-like modalities share."""

import functools
import json

from hypothesis import strategies as st

from tests import golden_cases

WORDS = (
    "human",
    "pose",
    "global",
    "camera",
    "shape",
    "none",
    "point",
    "polygon",
    "person",
    "stop",
    "sign",
    "a",
    "[EOS]",
    "[PAD]",
    "[UNK]",
    "[S_1]",
    "v0",
    "v4=1",
    "v0=1000",
    "v0=٣",
    "é",
    "##ing",
)

coordinate = st.builds(lambda axis, bin: f"v{axis}={bin}", st.integers(0, 3), st.integers(0, 999))
words = st.lists(coordinate | st.sampled_from(WORDS) | st.text(max_size=4), max_size=60)
generated_text = words.map(" ".join) | words.map("".join) | st.text(max_size=60)


@functools.cache
def golden(part: str) -> list[dict]:
    """Recorded cases of one modality."""
    return json.loads((golden_cases.shipped("transforms") / "transforms.json").read_text())[part]
