"""Whole runs over a few pictures, as a user makes them: a minute or two of compilation each."""

import shutil

import pytest

from fourm_jax.utils import io
from tests.jobs.own_folders import run, save

pytestmark = pytest.mark.stress


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(pictures, work directory) of a run over four pictures and a held-out one."""
    root = tmp_path_factory.mktemp("own")
    for number, name in enumerate(("red barn", "two ducks", "old bridge", "a dog", "IMG_0001")):
        save(root / "images" / f"{name}.png", number)
    (root / "images" / "notes.pdf").write_text("no picture")
    run(root / "images", root / "work")
    return root / "images", root / "work"


def test_a_run_over_five_pictures_ends_with_a_report_of_both_splits(finished):
    _, workdir = finished
    page, summary = (workdir / "report.html").read_text(), io.read_json(workdir / "metrics.json")
    assert "Pictures it was trained on" in page and "Held-out pictures" in page
    assert "left out: not_a_picture" in page
    assert set(summary["tasks"]) == {"train", "test"}
    assert summary["tasks"]["train"]["caption->tok_rgb"]["metric"] == "psnr"
    assert summary["tasks"]["train"]["rgb->tok_canny_edge"]["n"] == 4
    assert (workdir / "gallery.png").stat().st_size > 1000


def test_a_finished_run_reuses_every_phase(finished, capsys):
    images, workdir = finished
    before = (workdir / "trunk" / "metrics.jsonl").read_bytes()
    run(images, workdir)
    said = capsys.readouterr().out
    for phase in ("build", "text_tokenizer", "tokenizers", "tokenize", "evaluate", "report"):
        assert f"{phase}: reusing" in said
    assert (workdir / "trunk" / "metrics.jsonl").read_bytes() == before


def test_a_folder_with_other_pictures_does_not_continue_the_run(finished, tmp_path):
    images, workdir = finished
    shutil.copytree(images, tmp_path / "more")
    save(tmp_path / "more" / "new.png")
    with pytest.raises(
        ValueError, match=r"holds a run of size nano over 5 .*asked: size nano over 6"
    ):
        run(tmp_path / "more", workdir)
    with pytest.raises(ValueError, match=r"holds a run of size nano .*asked: size small"):
        run(images, workdir, "small")


@pytest.mark.parametrize("size", ["nano", "small"])
def test_a_single_picture_without_a_name_is_learned(size, tmp_path, capsys):
    save(tmp_path / "images" / "0001.png", size=(64, 48))
    assert run(tmp_path / "images", tmp_path / "work", size).exists()
    said = capsys.readouterr().out
    assert "fewer than 5: none is held out" in said and "none has a caption" in said
    assert set(io.read_json(tmp_path / "work" / "metrics.json")["tasks"]) == {"train"}
