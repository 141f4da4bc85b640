"""Data sets are opened as a config names them; what it misspells is named with what is allowed."""

import pytest

from fourm_jax.data import datasets as sources


def config(**changes):
    return {
        "name": "a",
        "source": "fake",
        "arguments": {"num_records": 3},
        "fields": {},
        "weight": 1.0,
        "mixture": {},
        **changes,
    }


def test_data_sets_are_opened_from_configs_in_their_order():
    datasets = sources.make_datasets([config(), config(name="b", weight=2.0)], "train")

    assert [(d.name, d.index, d.weight, len(d.source)) for d in datasets] == [
        ("a", 0, 1.0, 3),
        ("b", 1, 2.0, 3),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "token_shard"}, "did you mean 'token_shards'.*'digits'.*'fake'.*'scenes'"),
        ({"source": "collate"}, "unknown data source 'collate'"),
        ({"arguments": {"num_recods": 3}}, "argument of source 'fake' 'num_recods'; did you mean"),
        ({"source": "token_shards", "arguments": {}}, "missing a required .*argument: 'directory'"),
    ],
)
def test_a_wrong_source_or_argument_names_the_allowed_ones(changes, message):
    with pytest.raises(ValueError, match=message):
        sources.make_datasets([config(**changes)], "train")


def test_two_data_sets_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"\['a', 'a'\]"):
        sources.make_datasets([config(), config()], "train")
