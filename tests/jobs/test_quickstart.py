"""The quickstart refuses at once what a later phase would, and a folder of another job."""

import pytest

from configs import quickstart as quickstart_config
from fourm_jax.jobs import run_phases
from fourm_jax.tokenizers.text import TextTokenizer
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import io


def config(**overrides):
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return config_lib.override(quickstart_config.get_config("data=digits,runlocal"), changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trunk__model__num_heads": 5}, "divisible by 4 and by num_heads 5"),
        ({"trunk__mesh__fsdp": 3}, "does not cover the 8 cpu"),
        ({"text_vocab_size": 4_204}, "vocab_size 4204 leaves no room for word pieces"),
        ({"tokenizers__edge__batch_size": 0}, "'batch_size' is 0"),
    ],
)
def test_a_wrong_config_of_a_later_phase_is_refused_before_the_first(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_phases.check(config(**change), tmp_path)


def test_a_tokenizer_trained_from_another_config_is_not_reused(tmp_path):
    own = config()
    (tmp_path / "tokenizers" / "edge").mkdir(parents=True)
    before = config_lib.to_json(own.tokenizers.edge)
    io.write_json(tmp_path / "tokenizer_runs" / "edge" / "config.json", before)
    run_phases.check(own, tmp_path)
    with pytest.raises(ValueError, match=r"edge holds another run's .*: optimizer.lr is 0.003 the"):
        run_phases.check(config(tokenizers__edge__optimizer__lr=0.1), tmp_path)


def test_a_text_tokenizer_of_another_size_is_not_reused(tmp_path):
    TextTokenizer.train(["a red cone"], vocab_size=4500).save(tmp_path / "tokenizers" / "text")
    with pytest.raises(ValueError, match=r"vocab_size 4500, config.text_vocab_size is 4608"):
        run_phases.check(config(), tmp_path)
