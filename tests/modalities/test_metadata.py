"""Metadata: the published serialization, corrected decoding, and reading generated text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourm_jax.modalities import metadata, metadata_fields
from fourm_jax.modalities.metadata_fields import FIELDS, PUBLISHED
from tests.modalities import cases


def test_chunks_equal_those_of_the_published_system():
    for case in cases.golden("metadata"):
        value = metadata.Metadata(case["metadata"], PUBLISHED)
        assert value.to_chunks() == case["chunks"]
        assert value.to_text() == case["string"]


def test_the_common_table_writes_published_fields_alike():
    for case in cases.golden("metadata"):
        assert metadata.Metadata(case["metadata"]).to_chunks() == case["chunks"]


def test_fields_are_shuffled_by_the_generator_alone():
    values = {"n_humans": 3, "brightness": 100.0, "walkability": 0.5, "entropy": 7.0}
    plain = metadata.serialize(values)
    shuffled = metadata.serialize(values, np.random.default_rng(3))
    assert shuffled == metadata.serialize(values, np.random.default_rng(3))
    assert shuffled != plain
    assert sorted(shuffled) == sorted(plain)


def test_decoding_divides_by_what_encoding_multiplied_with():
    text = "v1=10 v0=49"  # the brightest bin
    assert metadata.parse(text).value.values == {"brightness": 255.0}
    published = metadata.Metadata.from_text(text, PUBLISHED, as_published=True)
    assert published.value.values == {"brightness": pytest.approx(249.9)}


@pytest.mark.parametrize("field", FIELDS.fields, ids=lambda field: field.name)
def test_every_bin_comes_back(field):
    possible = [bin for bin in range(1000) if field.encoding.decode(bin) is not None]
    assert possible == list(range(field.encoding.num_bins))
    for bin in possible:
        assert field.encoding.encode(field.encoding.decode(bin)) == bin


def test_impossible_values_unknown_and_repeated_fields_are_dropped():
    parsed = metadata.parse("v1=19 v0=2 v1=500 v0=1 v1=10 v0=0 v1=10 v0=1 v0=3 word v1=9")
    assert parsed.value.values == {"brightness": 0.0}
    assert [drop.reason for drop in parsed.dropped] == [
        "no value of 'watermark_score'",
        "unknown field",
        "repeated field 'brightness'",
        "no field v1 v0",
        "no field v1 v0",
        "no field v1 v0",
    ]


def test_published_reading_takes_the_last_value_and_every_bin():
    parsed = metadata.Metadata.from_text(
        "v1=19 v0=23 v1=10 v0=10 v1=10 v0=20", PUBLISHED, as_published=True
    )
    assert parsed.value.values == {"watermark_score": 23, "brightness": pytest.approx(102.0)}


@given(st.dictionaries(st.sampled_from([f.name for f in FIELDS.fields]), st.floats(0, 1)))
def test_reading_what_was_written_and_writing_it_again_gives_the_same_text(values):
    text = metadata.Metadata(values).to_text()
    parsed = metadata.parse(text)
    assert not parsed.dropped
    assert parsed.value.to_text() == text


@given(cases.generated_text, st.booleans())
def test_reading_never_raises(text, as_published):
    parsed = metadata.Metadata.from_text(text, as_published=as_published)
    assert set(parsed.value.values) <= {field.name for field in FIELDS.fields}


def test_what_is_no_metadata_is_refused():
    with pytest.raises(ValueError, match="metadata field 'brightnes'; did you mean 'brightness'"):
        metadata.serialize({"brightnes": 3.0})
    with pytest.raises(ValueError, match="'brightness' is nan"):
        metadata.serialize({"brightness": float("nan")})
    with pytest.raises(ValueError, match="metadata of type list"):
        metadata.serialize([3.0])
    with pytest.raises(ValueError, match="repeated names or ids"):
        metadata_fields.FieldTable((*PUBLISHED.fields, PUBLISHED.fields[0]))
