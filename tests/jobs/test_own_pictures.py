"""One's own pictures in one command: refused at once, said before, made into records.

Whole runs are in tests/stress/test_own_pictures.py.
"""

import dataclasses

import pytest
from PIL import Image

from configs import own_pictures as configs
from fourm_jax.data.storage import left_out, shards
from fourm_jax.jobs import build_data, own_pictures, phases
from tests.jobs.own_folders import save, start


def test_a_workdir_belongs_to_its_pictures_and_size(tmp_path):
    images, workdir = tmp_path / "images", tmp_path / "work"
    save(images / "a dog.png")
    start(images, workdir)
    start(images, workdir)
    with pytest.raises(ValueError, match=r"size nano over 1 pictures; asked: size small over 1"):
        start(images, workdir, "small")
    save(images / "a cat.png")
    with pytest.raises(ValueError, match=r"size nano over 1 pictures; asked: size nano over 2"):
        start(images, workdir)


def test_a_workdir_of_something_else_is_refused(tmp_path):
    save(tmp_path / "images" / "a dog.png")
    (tmp_path / "work" / "raw").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds a run of something else"):
        start(tmp_path / "images", tmp_path / "work")


def broken(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")


@pytest.mark.parametrize(
    ("make", "workdir", "message"),
    [
        (lambda root: None, "work", "images: no such folder"),
        (lambda root: root.mkdir(), "work", "no picture among 0 files; looked for"),
        (lambda root: root.write_text("x"), "work", "images: no such folder"),
        (lambda root: broken(root / "a.txt"), "work", "no picture among 1 files"),
        (lambda root: broken(root / "a.png"), "work", "none of 1 pictures, .*; a.png: unreadable"),
        (lambda root: save(root / "a.png"), "images", "workdir .* lies inside the pictures"),
        (lambda root: save(root / "a.png"), "images/work", "lies inside the pictures"),
    ],
    ids=["none", "empty", "file", "no picture", "broken", "same", "inside"],
)
def test_what_cannot_work_is_refused_before_anything_is_written(make, workdir, message, tmp_path):
    make(tmp_path / "images")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        start(tmp_path / "images", tmp_path / workdir)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("count", "held_out"), [(1, 0), (4, 0), (5, 1), (14, 1), (30, 3), (3_000, 300), (9_000, 512)]
)
def test_one_picture_in_ten_is_held_out_and_of_a_few_none(count, held_out):
    files = [f"{number}.png" for number in range(count)]
    found, fraction = own_pictures.hold_out(files)
    assert found == held_out
    assert len(build_data.divide(files, fraction)["test"]) == held_out


def test_what_will_be_done_is_said_before(tmp_path, capsys):
    for number in range(5):
        save(tmp_path / "images" / f"IMG_{number}.png", number)
    (tmp_path / "images" / "notes.pdf").write_text("no picture")
    start(tmp_path / "images", tmp_path / "work")
    said = capsys.readouterr().out
    assert "5 pictures in" in said and "1 of them, chosen by name, are held out" in said
    assert "not used: 1 x not_a_picture, e.g. notes.pdf" in said
    assert "none has a caption" in said and "about 5 minutes on 2 CPU cores" in said


def test_every_kind_of_picture_becomes_a_record_or_is_listed(tmp_path):
    images = tmp_path / "images"
    for number, mode in enumerate(("L", "LA", "P", "RGBA", "1", "I;16", "CMYK")):
        ending = "tif" if mode == "CMYK" else "png"
        save(images / mode / f"mode.{ending}", number, mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: turned by 90 degrees
    save(images / "phone.jpg", size=(80, 40), exif=exif)
    save(images / "phone.png"), (images / "phone.txt").write_text("which one?")
    save(images / "dot.png", size=(1, 1))
    save(images / "cats" / "deep" / "0001.png")
    broken(images / "broken.jpg")

    found = own_pictures.survey(images, tmp_path / "work")
    found = dataclasses.replace(found, num_held_out=0, test_fraction=0.0)
    config = configs.make("nano", 12, captions=True, runlocal=True)
    record = phases.Phases(tmp_path / "work", own_pictures.PHASES)
    own_pictures.build(config, found, tmp_path / "work", record)

    reader = shards.Reader(tmp_path / "work" / "raw", "train")
    made = {reader[index]["file"]: reader[index] for index in range(len(reader))}
    listed = left_out.read(tmp_path / "work" / "raw", "train")
    reasons = {one.place: one.reason for one in listed if not one.kept}
    assert reasons == {
        "broken.jpg": "unreadable_picture",
        "dot.png": "too_small",
        "phone.jpg": "ambiguous_sidecar",
        "phone.png": "ambiguous_sidecar",
    }
    assert len(made) == 8 and all(one["rgb"].shape[2] == 3 for one in made.values())
    assert made["cats/deep/0001.png"]["caption"] == ["deep"]


def test_steps_grow_with_the_number_of_pictures_and_with_nothing_else_to_set():
    steps = [configs.make("nano", n, captions=True).trunk.num_steps for n in (1, 3_000, 48_000)]
    assert steps == [880, 4_400, 17_600]
    for size in configs.NUM_STEPS:
        config = configs.make(size, 3_000, captions=False)
        assert "caption" not in config.pretokenize.modalities["names"]
        assert config.tokenizers.rgb.num_steps == configs.NUM_STEPS[size][0]
        assert "3,000" not in config.duration and "minutes on" in config.duration
