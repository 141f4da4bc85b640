"""What is typed for evaluation, comparison and search is checked before anything is read."""

import ml_collections
import numpy as np
import pytest
from etils import epath

from experiments import cli
from fourm_jax.data import in_memory
from fourm_jax.data.sources import fake
from fourm_jax.data.storage import shard_writer
from fourm_jax.evals import evaluator
from fourm_jax.jobs import comparison, eval_data, evaluation
from fourm_jax.jobs.comparison import Number
from fourm_jax.modalities import registry
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import run_folder
from tests.evals import tiny_scenes


def test_options_belong_to_the_evaluators_that_are_asked_for():
    typed = evaluation.typed(["knn", "codebooks"], ["knn.k=5", "knn.label=det.classes.0"])
    assert typed == {"knn": {"k": "5", "label": "det.classes.0"}, "codebooks": {}}
    with pytest.raises(ValueError, match="unknown evaluator of --option 'kn'"):
        evaluation.typed(["knn"], ["kn.k=5"])
    with pytest.raises(ValueError, match=r"--option=k=5, expected NAME\.OPTION=VALUE"):
        evaluation.typed(["knn"], ["k=5"])


def test_lists_and_numbers_of_a_command_line_have_their_types():
    made = evaluator.load("any_to_any", {"targets": "tok_depth+caption", "num_train": "8"})
    assert (made.targets, made.num_train) == (("tok_depth", "caption"), 8)
    with pytest.raises(ValueError, match="option num_train=few, expected int"):
        evaluator.load("any_to_any", {"num_train": "few"})
    with pytest.raises(ValueError, match="num_samples=4 needs a temperature above 0"):
        evaluator.load("any_to_any", {"num_samples": 4})
    with pytest.raises(ValueError, match="option measures is for one target"):
        evaluator.load("any_to_any", {"measures": "mae"})


@pytest.mark.parametrize("name", ["any_to_any", "captions", "knn", "linear_probe", "frechet"])
@pytest.mark.parametrize("given", ["rgb+rgb", ("rgb", "rgb")])
def test_an_evaluator_takes_no_name_twice_in_a_list(name, given):
    with pytest.raises(ValueError, match="option condition: name 'rgb' is given twice"):
        evaluator.load(name, {"condition": given})


def test_weights_of_an_evaluator_may_be_equal():
    assert evaluator.load("val_loss", {"weights": "0.5+0.5"}).weights == (0.5, 0.5)


def test_a_flag_with_its_value_is_no_folder():
    typed = ["a", "--output", "b", "c", "--verbosity=1"]
    assert comparison.split(typed) == (["--output", "b", "--verbosity=1"], ["a", "c"])
    assert comparison.split(["-v", "1", "a"]) == (["-v", "1"], ["a"])


def test_only_a_data_set_is_data():
    with pytest.raises(ValueError, match="--data names no data set"):
        eval_data.of_config(config_lib.load(cli.find_config("quickstart:runlocal")), None)


def test_a_model_that_is_no_run_needs_data(tmp_path):
    with pytest.raises(ValueError, match="is no run folder, whose data are known"):
        eval_data.choose(tmp_path, None, None)


def test_the_mask_of_a_validation_loss_is_that_of_the_run():
    model = tiny_scenes.generator().model
    data = tiny_scenes.data()
    masking = eval_data.masking_of(data, model, tiny_scenes.CONFIG)
    assert (masking.num_inputs, masking.num_targets) == (16, 12)
    published = eval_data.masking_of(data, model, None)
    assert (published.num_inputs, published.num_targets) == (256, 256)
    bare = eval_data.EvalData(groups=({**data.groups[0], "mixture": None},))
    assert eval_data.masking_of(bare, model, None) is None
    assert eval_data.masking_of(bare, model, tiny_scenes.CONFIG) is not None


def test_records_without_raw_fields_have_none(tmp_path):
    model = tiny_scenes.generator().model
    records = tiny_scenes.data().read(model.modalities, "test", 2)
    assert records.keys == ["fake/test/000000", "fake/test/000001"] and records.fields == {}
    group = {**tiny_scenes.data().groups[0], "source": "token_shards"}
    gone = eval_data.EvalData(groups=({**group, "arguments": {"directory": str(tmp_path)}},))
    with pytest.raises(ValueError, match="no such split"):
        gone.read(model.modalities, "test", 2)


def test_records_that_the_run_may_leave_out_are_no_records_of_an_evaluation(tmp_path):
    model, folder = tiny_scenes.generator().model, tmp_path / run_folder.DATA
    tokens = fake.make_source("test", names=tiny_scenes.NAMES, num_records=3)
    broken = {**tokens[1], "tok_depth": np.zeros(3, np.uint16)}
    raw = [{"number": np.array([number])} for number in range(3)]
    written = [tokens[0], broken, tokens[2]]
    shard_writer.write_split(folder, "test", {}, 1, lambda _: iter(written))
    shard_writer.write_split(tmp_path / run_folder.RAW, "test", {}, 1, lambda _: iter(raw))
    (group,) = tiny_scenes.CONFIG.data
    group = {**group, "source": "token_shards", "arguments": {"directory": str(folder)}}
    config = ml_collections.ConfigDict({"data": (group,), "max_left_out_records": 1})
    records = eval_data.of_run(tmp_path, config).read(model.modalities, "test", 0)
    assert records.keys == ["fake/test/000000", "fake/test/000002"]
    assert records.fields["number"].tolist() == [[0], [2]]
    depths = records.tokens["tok_depth"]["ids"]
    np.testing.assert_array_equal(depths, [tokens[0]["tok_depth"], tokens[2]["tok_depth"]])
    config.max_left_out_records = 0
    with pytest.raises(ValueError, match=r"record 1: .*tok_depth"):
        eval_data.of_run(tmp_path, config).read(model.modalities, "test", 0)


def test_raw_records_are_read_and_encoded_where_there_are_no_tokens(tmp_path):
    config = config_lib.load(cli.find_config("data/scenes:tokenize"))
    specs = registry.resolve("scenes", ("rgb",))
    records = eval_data.of_config(config, epath.Path(tmp_path)).read(specs, "test", 2)
    assert records.keys == ["scenes/test/000000", "scenes/test/000001"]
    np.testing.assert_array_equal(records.tokens["rgb"]["pixels"], records.fields["rgb"])
    assert set(evaluator.labels(records, "num_objects")) <= set("1234")
    with pytest.raises(ValueError, match="raw records need tokenizers"):
        eval_data.of_config(config, None).read(specs, "test", 2)


def test_raw_records_that_the_run_may_leave_out_are_left_out_as_tokens_are(tmp_path, monkeypatch):
    good = [{"rgb": np.full((32, 32, 3), n, np.uint8)} for n in range(2)]
    infinite = {"rgb": np.full((32, 32, 3), np.inf)}  # which no encoder takes
    rows = in_memory.Rows([good[0], ValueError("cut short"), infinite, good[1]])
    monkeypatch.setattr(eval_data.sources, "open_source", lambda *_: rows)
    config = ml_collections.ConfigDict(
        {
            "source": "mine",
            "arguments": {},
            "modalities": {},
            "num_records": {"test": 0},
            "seed": 0,
        }
    )
    specs = registry.resolve("scenes", ("rgb",))
    records = eval_data.of_config(config, epath.Path(tmp_path), 2).read(specs, "test", 0)
    assert records.keys == ["mine/test/000000", "mine/test/000003"]
    assert records.fields["rgb"][:, 0, 0, 0].tolist() == [0, 1]
    assert records.tokens["rgb"]["pixels"][:, 0, 0, 0].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"data set 'mine', record 2: .*holds NaN or infinity"):
        eval_data.of_config(config, epath.Path(tmp_path), 1).read(specs, "test", 0)
    none = in_memory.Rows([ValueError("cut short")])
    monkeypatch.setattr(eval_data.sources, "open_source", lambda *_: none)
    with pytest.raises(ValueError, match="none of 1 records can be used; the first: cut short"):
        eval_data.of_config(config, epath.Path(tmp_path), 1).read(specs, "test", 0)


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0.9, (0.8, 1.0), "better"),
        (0.1, (0.0, 0.2), "worse"),
        (0.6, (0.4, 0.7), ""),
        (0.9, None, ""),
    ],
)
def test_only_sure_differences_have_a_mark(value, interval, expected):
    first = Number(value=0.5, higher_is_better=True, interval=(0.4, 0.6))
    number = Number(value=value, higher_is_better=True, interval=interval)
    assert comparison.verdict(number, first) == expected


def test_runs_are_told_apart_by_as_much_of_their_path_as_it_takes():
    names = comparison._names([epath.Path("a/trunk"), epath.Path("b/trunk")])
    assert names == ["a/trunk", "b/trunk"]
