import pytest

from fourm_jax.utils import upgrades


def test_a_renamed_key_moves_with_its_value_to_its_new_name():
    old = {"loss": {"kind": "sum", "scale": 2}}
    assert upgrades.upgrade_config(old, {"loss.kind": "loss.type"}, {}) == {
        "loss": {"type": "sum", "scale": 2}
    }
    assert old == {"loss": {"kind": "sum", "scale": 2}}  # what was stored is not touched


def test_a_key_may_move_to_another_group_and_a_group_may_be_renamed():
    old = {"masking": {"objective": "mod"}, "crops": {"size": 8}}
    renames = {"masking.objective": "loss", "crops": "crop_policy.settings"}
    assert upgrades.upgrade_config(old, renames, {}) == {
        "masking": {},
        "loss": "mod",
        "crop_policy": {"settings": {"size": 8}},
    }


def test_a_star_stands_for_every_item_of_a_list_and_every_key_of_a_group():
    old = {"data": [{"arguments": {"a": 1}}, {"arguments": {"b": 2}}], "m": {"x": {"a": 3}}}
    renames = {"data.*.arguments.a": "data.*.arguments.c", "m.*.a": "m.*.d"}
    assert upgrades.upgrade_config(old, renames, {}) == {
        "data": [{"arguments": {"c": 1}}, {"arguments": {"b": 2}}],
        "m": {"x": {"d": 3}},
    }


def test_a_key_that_nothing_reads_any_more_is_dropped():
    assert upgrades.upgrade_config({"a": 1, "b": 2}, {"a": None}, {}) == {"b": 2}


def test_a_renamed_value_is_found_under_the_new_key():
    old = {"model": {"compat": "ml-4m"}}
    keys, values = {"model.compat": "model.as_published"}, {"model.as_published": {"ml-4m": True}}
    assert upgrades.upgrade_config(old, keys, values) == {"model": {"as_published": True}}


def test_a_current_config_stays_as_it_is():
    current = {"model": {"as_published": False, "sizes": [1, 2]}}
    keys, values = {"model.compat": "model.as_published"}, {"model.as_published": {"ml-4m": True}}
    assert upgrades.upgrade_config(current, keys, values) == current


def test_both_names_of_a_key_at_once_are_refused():
    with pytest.raises(ValueError, match=r"'loss\.kind' and 'loss\.type', its name today"):
        upgrades.upgrade_config({"loss": {"kind": 1, "type": 2}}, {"loss.kind": "loss.type"})


def test_fields_of_stored_modalities_are_renamed_in_every_modality():
    stored = {"rgb": {"kind": "pixels", "source": "a"}, "depth": {"kind": "grid", "source": "b"}}
    assert upgrades.upgrade_modalities(stored, {"source": "source_field", "old": None}) == {
        "rgb": {"kind": "pixels", "source_field": "a"},
        "depth": {"kind": "grid", "source_field": "b"},
    }


def test_a_run_config_that_says_compat_says_as_published():
    trunk = {"model": {"dim": 8, "compat": "ml-4m"}}
    assert upgrades.upgrade_config(trunk) == {"model": {"dim": 8, "as_published": True}}
    for word in ("", None):
        trunk["model"]["compat"] = word
        assert upgrades.upgrade_config(trunk) == {"model": {"dim": 8, "as_published": False}}
    tokenizer = {"tokenizer": {"arguments": {"compat": "", "quantizer": {"compat": "ml-4m"}}}}
    assert upgrades.upgrade_config(tokenizer) == {
        "tokenizer": {"arguments": {"as_published": False, "quantizer": {"as_published": True}}}
    }


def test_a_mixture_that_says_spill_says_share_leftover():
    old = {"data": [{"name": "a", "mixture": {"spill": [True, False]}}, {"name": "b"}]}
    assert upgrades.upgrade_config(old) == {
        "data": [{"name": "a", "mixture": {"share_leftover": [True, False]}}, {"name": "b"}]
    }


def test_a_run_config_that_speaks_of_bad_records_speaks_of_left_out_ones():
    assert upgrades.upgrade_config({"max_bad_records": 2}) == {"max_left_out_records": 2}


def test_a_key_that_came_later_is_completed_where_its_group_is():
    stored = {"task": "fourm", "model": {"dim": 32}}
    assert upgrades.upgrade_config(stored) == {
        "task": "fourm",
        "z_loss": 0.0,
        "model": {"dim": 32, "smooth_numbers": False},
    }
    assert "model" not in upgrades.upgrade_config({"task": "fourm"})
    known = {"task": "transfer", "model": {"smooth_numbers": True}}
    assert upgrades.upgrade_config(known) == known
