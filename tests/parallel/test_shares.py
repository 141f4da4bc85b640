"""What processes tell each other through the devices."""

import numpy as np
import pytest
from jax.experimental import multihost_utils

from fourm_jax.parallel import shares

CONTENTS = (b"abcdefg", b"", b"xyz", b"123456")


@pytest.mark.parametrize("chunk", [1, 3, 6, 100])
def test_bytes_of_any_length_are_gathered_in_pieces(chunk, monkeypatch):
    """Process 2 of four; of the others it is known what they would send in the same rounds."""
    monkeypatch.setattr(shares, "CHUNK", chunk)
    sent = []

    def gather(own):
        if not sent:  # the sizes come first
            rows = [divmod(len(content), chunk) for content in CONTENTS]
        else:
            start = sum(map(len, sent[1:]))
            pieces = [content[start : start + chunk] for content in CONTENTS]
            rows = [list(piece.ljust(len(own), b"\0")) for piece in pieces]
        sent.append(own)
        np.testing.assert_array_equal(own, rows[2])
        return np.array(rows, own.dtype)

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    assert tuple(shares.gathered(CONTENTS[2])) == CONTENTS
    assert max(map(len, sent)) <= max(chunk, 2)
