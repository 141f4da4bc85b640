"""An index continues, reads back in both formats, and finds what was put in."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from fourm_jax.data.sources import fake
from fourm_jax.data.storage import left_out, shard_writer
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import comparison, embedding, evaluation, searching
from fourm_jax.jobs.eval_data import EvalData
from fourm_jax.utils import io
from tests.evals import tiny_scenes


def job(output, **changes):
    made = embedding.Job(
        source="runs/tiny",
        data=tiny_scenes.data(),
        split="test",
        condition=("rgb",),
        kind="encoder",
        output=epath.Path(output),
        num_records=10,
        per_block=4,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("index")
    assert embedding.run(tiny_scenes.generator(), job(output)) == 10
    return output


def test_an_index_has_a_key_and_a_vector_per_record(folder):
    index = embedding.load(folder)
    assert index.keys[:2] == ("fake/test/000000", "fake/test/000001") and len(index.keys) == 10
    assert index.vectors.shape == (10, 16)
    assert sorted(path.name for path in folder.glob("vectors-*")) == [
        f"vectors-0000{number}.npy" for number in range(3)
    ]


def test_what_is_missing_is_written_and_the_rest_stays(folder):
    before = embedding.load(folder).vectors
    (folder / "vectors-00001.npy").unlink()
    (folder / embedding.INDEX).unlink()
    kept = (folder / "vectors-00000.npy").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"no index\.json in"):
        embedding.load(folder)
    embedding.run(tiny_scenes.generator(), job(folder))
    np.testing.assert_array_equal(embedding.load(folder).vectors, before)
    assert (folder / "vectors-00000.npy").stat().st_mtime_ns == kept


def test_shards_hold_the_same_vectors(folder, tmp_path):
    embedding.run(tiny_scenes.generator(), job(tmp_path, format="array_record"))
    stored, plain = embedding.load(tmp_path), embedding.load(folder)
    assert stored.keys == plain.keys
    np.testing.assert_array_equal(stored.vectors, plain.vectors)


def test_another_index_is_not_continued(folder):
    with pytest.raises(ValueError, match="holds another index: depth is 0 there, 1 here"):
        embedding.run(tiny_scenes.generator(), job(folder, depth=1))


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    embedding.check_output(epath.Path(tmp_path))
    listed = left_out.list_path(epath.Path(tmp_path), "test")
    listed.write_text("of a data set")
    for form in embedding.FORMATS:
        with pytest.raises(ValueError, match=rf"holds '{listed.name}' and no index; use another"):
            embedding.run(tiny_scenes.generator(), job(tmp_path, format=form))
    assert listed.read_text() == "of a data set"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ipynb_checkpoints", listed.name]


def test_a_record_finds_itself_and_is_drawn(folder):
    index = embedding.load(folder)
    generator = tiny_scenes.generator()
    records = tiny_scenes.data().read(generator.model.modalities, "test", 10)
    picture = records.tokens["rgb"]["pixels"][7]
    hits = searching.find(generator, index, {"rgb": picture}, 3)
    assert index.keys[hits.rows[0, 0]] == "fake/test/000007"
    assert hits.cosines[0, 0] == pytest.approx(1, abs=1e-5)
    drawn = searching.draw(generator, index, {"rgb": picture}, hits)
    assert drawn.dtype == np.uint8 and drawn.shape[1] > 4 * picture.shape[1]
    with pytest.raises(ValueError, match="unknown query 'rbg'; did you mean 'rgb'"):
        searching.find(generator, index, {"rbg": picture}, 3)


def trained_further():
    """The tiny generator after one more step of training."""
    before = tiny_scenes.generator()
    return Generator(before.model, jax.tree.map(lambda x: x + 0.1, before.params))


def test_an_index_of_other_weights_is_neither_continued_nor_searched(folder):
    after = trained_further()
    with pytest.raises(ValueError, match="holds another index: weights is"):
        embedding.run(after, job(folder))
    with pytest.raises(ValueError, match="of other weights than runs/tiny has now"):
        searching.find(after, embedding.load(folder), {"caption": [1, 2]}, 3)


def test_an_index_of_an_older_version_knows_no_weights_and_is_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name in (embedding.INDEX, "job.json"):
        about = io.read_json(tmp_path / name)
        del about["weights"]
        io.write_json(tmp_path / name, about)
    old = embedding.load(tmp_path)
    assert searching.find(trained_further(), old, {"caption": [1, 2]}, 3).rows.shape == (1, 3)
    embedding.run(tiny_scenes.generator(), job(tmp_path))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A job of records on disk, as it is typed in the folder of the runs."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    pathlib.Path("tiny").mkdir()
    source = fake.make_source("test", names=tiny_scenes.NAMES, num_records=10)
    records = [source[number] for number in range(10)]
    shard_writer.write_split("tiny/data", "test", {}, 1, lambda _: iter(records))
    (group,) = tiny_scenes.CONFIG.data
    group = {**group, "source": "token_shards", "arguments": {"directory": "tiny/data"}}
    data = EvalData(groups=(group,), tokenizers=epath.Path("tiny/tokenizers"))
    return job("index", source="tiny", data=data, format="array_record")


def test_an_index_is_searched_from_any_working_directory(stored, tmp_path, monkeypatch):
    embedding.run(tiny_scenes.generator(), stored)
    monkeypatch.chdir(tmp_path)
    index = embedding.load(tmp_path / "runs" / "index")
    assert index.about["source"] == str(tmp_path / "runs/tiny")
    assert index.about["tokenizers"] == str(tmp_path / "runs/tiny/tokenizers")
    picture = {"rgb": np.zeros((32, 32, 3), np.uint8)}
    hits = searching.find(tiny_scenes.generator(), index, picture, 2)
    assert searching.draw(tiny_scenes.generator(), index, picture, hits).dtype == np.uint8


@pytest.fixture
def damaged(tmp_path):
    """A job of ten records in blocks of four; 1 and 6 have pictures that are cut short."""
    source = fake.make_source("test", names=tiny_scenes.NAMES, num_records=10)
    records = [source[number] for number in range(10)]
    for number in (1, 6):
        records[number]["rgb"] = records[number]["rgb"][:5]
    shard_writer.write_split(tmp_path / "data", "test", {}, 1, lambda _: iter(records))
    (group,) = tiny_scenes.CONFIG.data
    arguments = {"directory": str(tmp_path / "data")}
    data = EvalData(groups=({**group, "source": "token_shards", "arguments": arguments},))
    return job(tmp_path / "index", data=data)


def allowing(made, count):
    return dataclasses.replace(
        made, data=dataclasses.replace(made.data, max_left_out_records=count)
    )


KEPT = [f"fake/test/{number:06}" for number in (0, 2, 3, 4, 5, 7, 8, 9)]


@pytest.mark.parametrize("form", embedding.FORMATS)
def test_bad_records_have_no_vector_and_are_listed(damaged, form, capsys):
    made = allowing(dataclasses.replace(damaged, format=form), 2)
    assert embedding.run(tiny_scenes.generator(), made) == 8
    printed = capsys.readouterr().out
    assert printed.count("left-out record: data set 'fake', ") == 2
    index = embedding.load(made.output)
    assert list(index.keys) == KEPT and index.vectors.shape == (8, 16)
    assert index.about["num_left_out"] == 2
    listed = [(one.place, one.record) for one in left_out.read(made.output, "test")]
    assert listed == [("fake", 1), ("fake", 6)]
    generator = tiny_scenes.generator()
    picture = fake.make_source("test", names=tiny_scenes.NAMES, num_records=10)[7]["rgb"]
    hits = searching.find(generator, index, {"rgb": picture}, 2)
    assert index.keys[hits.rows[0, 0]] == "fake/test/000007"
    assert searching.draw(generator, index, {"rgb": picture}, hits).dtype == np.uint8


def test_one_that_is_not_allowed_ends_the_job_with_its_name(damaged):
    with pytest.raises(ValueError, match=r"data set 'fake', .*, record 1: 'rgb' has shape \(5, 32"):
        embedding.run(tiny_scenes.generator(), damaged)


@pytest.mark.parametrize("form", embedding.FORMATS)
def test_those_of_earlier_blocks_count_when_a_job_is_continued(damaged, form):
    made = dataclasses.replace(damaged, format=form)
    for _ in range(2):  # record 1 of block 0 was left out before, and still counts
        with pytest.raises(ValueError, match=r"2 left-out records, allowed: 1 .*record 6"):
            embedding.run(tiny_scenes.generator(), allowing(made, 1))
    assert embedding.run(tiny_scenes.generator(), allowing(made, 2)) == 8
    assert list(embedding.load(made.output).keys) == KEPT


def test_a_neighbor_that_is_drawn_worse_than_it_was_embedded_is_a_word(damaged):
    made = dataclasses.replace(damaged, condition=("tok_depth",))
    assert embedding.run(tiny_scenes.generator(), made) == 10  # whose depth is good
    index, generator = embedding.load(made.output), tiny_scenes.generator()
    hits = searching.Hits(rows=np.array([[1, 2]]), cosines=np.array([[0.9, 0.8]]))
    assert searching.draw(generator, index, {"caption": [1]}, hits).dtype == np.uint8


def test_what_an_older_version_began_with_paths_as_typed_is_continued(
    stored, monkeypatch, tmp_path
):
    with monkeypatch.context() as older:
        older.setattr(embedding, "_rooted", dict)
        embedding.run(tiny_scenes.generator(), stored)
    assert embedding.load("index").about["data"][0]["arguments"] == {"directory": "tiny/data"}
    embedding.run(tiny_scenes.generator(), stored)
    expected = {"directory": str(tmp_path / "runs/tiny/data")}
    assert embedding.load("index").about["data"][0]["arguments"] == expected
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="holds another index: source is 'tiny' there"):
        embedding.run(tiny_scenes.generator(), job("runs/index", source="runs/tiny"))


def test_a_name_on_the_hub_and_an_address_stay_as_they_are():
    about = {"source": "owner/model", "tokenizers": "gs://bucket/tokenizers"}
    tfds = {"source": "tfds", "arguments": {"dataset": "coco", "data_dir": ""}}
    assert embedding._rooted({**about, "data": [tfds]}) == {**about, "data": [tfds]}


def test_a_condition_that_the_model_does_not_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown condition 'depth'; did you mean 'tok_depth'"):
        embedding.run(tiny_scenes.generator(), job(tmp_path, condition=("depth",)))
    with pytest.raises(ValueError, match="unknown condition ''"):
        embedding.run(tiny_scenes.generator(), job(tmp_path, condition=()))
    assert not (tmp_path / "job.json").exists()
    with pytest.raises(ValueError, match=r"depth 9, allowed: 1\.\.1, or 0 for all"):
        embedding.run(tiny_scenes.generator(), job(tmp_path, depth=9))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Folders of two evaluations: of the trunk, and the same with other numbers."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    prepared = evaluation.prepare(
        folders[0],
        tiny_scenes.generator(),
        tiny_scenes.data(),
        {"codebooks": {}, "retrieval": {"features": "encoder"}},
        num_records=10,
    )
    summary = evaluation.run(prepared, folders[0])
    task = summary["tasks"]["retrieval/caption=>rgb"]
    other = {**task, "model": 1.0, "interval": (1.0, 1.0), "also": []}
    io.write_json(folders[1] / "metrics.json", {"tasks": {"retrieval/caption=>rgb": other}})
    return folders


def test_an_evaluation_writes_numbers_and_one_page(evaluated):
    tasks = io.read_json(evaluated[0] / "metrics.json")["tasks"]
    assert {"codebooks/tok_depth", "retrieval/rgb=>caption"} <= set(tasks)
    page = (evaluated[0] / "report.html").read_text()
    assert "codebook_usage" in page and "95 % interval" in page and "http" not in page


def test_runs_stand_side_by_side_and_sure_differences_are_marked(evaluated, tmp_path):
    runs = comparison.read(evaluated)
    text = comparison.text(runs)
    (line,) = [row for row in text.splitlines() if "caption=>rgb r@1 " in row]
    assert line.endswith("1 [1, 1] better")
    assert "codebooks/tok_depth codebook_usage" in text
    assert comparison.write(runs, tmp_path).read_text().count("better") >= 1


def test_what_cannot_be_compared_is_refused(evaluated, tmp_path):
    with pytest.raises(ValueError, match="1 runs, at least two are compared"):
        comparison.read(evaluated[:1])
    with pytest.raises(ValueError, match=r"holds neither metrics\.json nor metrics\.jsonl"):
        comparison.read([evaluated[0], tmp_path])


def test_an_evaluation_of_nothing_is_refused(tmp_path):
    generator, data = tiny_scenes.generator(), tiny_scenes.data()
    with pytest.raises(ValueError, match="no evaluator"):
        evaluation.prepare(tmp_path, generator, data, {})
    with pytest.raises(ValueError, match="unknown evaluator 'kmn'; did you mean 'knn'"):
        evaluation.prepare(tmp_path, generator, data, {"kmn": {}})
    arguments = {"names": tiny_scenes.NAMES, "num_records": 0}
    empty = {**data.groups[0], "arguments": arguments}
    with pytest.raises(ValueError, match="data set 'fake': split 'test' has no records"):
        evaluation.prepare(tmp_path, generator, EvalData(groups=(empty,)), {"codebooks": {}})
