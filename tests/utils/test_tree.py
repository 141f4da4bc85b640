"""Leaf names, selectors, random streams and atomic files."""

import jax
import jax.numpy as jnp
import pytest

from fourm_jax.utils import io, rng, tree

PARAMS = {"encoder": {"norm": {"scale": 1}, "fc1": {"kernel": 2, "bias": 3}}}


def test_leaves_are_named_by_their_path():
    names = {"encoder/fc1/bias": 3, "encoder/fc1/kernel": 2, "encoder/norm/scale": 1}
    assert tree.named_leaves(PARAMS) == names


def test_selectors_mark_leaves_and_must_match_something():
    found = tree.matches(["norm", "bias$"], PARAMS, "no_decay")
    assert found == {"encoder": {"norm": {"scale": True}, "fc1": {"kernel": False, "bias": True}}}
    with pytest.raises(ValueError, match="no_decay: 'gamma' matches no parameter; there are: enc"):
        tree.matches(["norm", "gamma"], PARAMS, "no_decay")


def test_elements_are_counted():
    assert tree.num_elements({"a": jnp.ones((2, 3)), "b": jnp.ones(4)}) == 10


def test_streams_differ_by_name_and_step_and_are_the_same_in_every_process():
    root = jax.random.key(0)
    keys = [rng.step_key(root, name, step) for name in ("train", "init") for step in (0, 1)]
    data = [tuple(jax.random.key_data(key).tolist()) for key in keys]
    assert len(set(data)) == 4
    # crc32("train") is 0x5c66e4a3 whatever the process; Python's hash() of text is salted.
    assert rng.stream(root, "train") == jax.random.fold_in(root, 0x5C66E4A3)


def test_streams_of_several_keys_are_those_of_each():
    keys = jax.random.split(jax.random.key(0), 3)
    for name in ("train", "caption"):  # crc32("caption") is above 2^31
        together = rng.streams(keys, name)
        assert all(one == rng.stream(key, name) for one, key in zip(together, keys, strict=True))


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "folder" / "values.json"
    io.write_json(path, {"a": 1})
    io.write_json(path, {"a": 2})
    assert io.read_json(path) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["values.json"]


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "values.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"values.json is not valid JSON"):
        io.read_json(tmp_path / "values.json")
