"""A folder of pictures -> raw shards -> tokens -> a batch; killed, shared, resumed; bad input."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import skimage
from PIL import Image

from configs.data import pictures as pictures_config
from fourm_jax.data import datasets, pipeline
from fourm_jax.data.crops import policy
from fourm_jax.data.sources import token_shards
from fourm_jax.data.storage import left_out, shards
from fourm_jax.evals import panels
from fourm_jax.jobs import build_data, build_preview, pretokenize
from fourm_jax.labelers import base
from fourm_jax.modalities import registry
from fourm_jax.tokenizers import text

ROOT = pathlib.Path(__file__).parents[2]
PHOTOGRAPHS = pathlib.Path(skimage.__file__).parent / "data"
NAMES = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "page.png",
    "rocket.jpg",
)
CLASSICAL = ("rgb", "canny_edge", "color_palette", "metadata", "caption")
TEXTS = ("caption", "color_palette", "metadata")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(PHOTOGRAPHS / name, folder)
    (folder / "coffee.txt").write_text("a cup of coffee\nan espresso left of a spoon\n")
    return folder


def job(images, output, labelers=None, **options):
    if labelers is None:
        labelers = build_data.make_labelers(CLASSICAL, {}, 64)
    options = {"records_per_shard": 2, "test_fraction": 0.4, **options}
    return build_data.Job(images=images, output=output, labelers=labelers, **options)


def refusing(name):
    """A labeler that refuses one picture, and counts how often it is asked."""
    asked = []

    def label(records):
        asked.append(len(records))
        if any(record["file"] == name for record in records):
            raise ValueError("not today")
        return [{} for _ in records]

    return base.Labeler(name="refusing", inputs=("file",), outputs={}, label=label), asked


def contents(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def read(output, split):
    reader = shards.Reader(output, split)
    return {record["file"]: record for record in (reader[i] for i in range(len(reader)))}


def counts(results):
    return {split: result.num_records for split, result in results.items()}


def listed(output):
    return {one.place: one.message for one in left_out.read(output, "train")}


def test_every_picture_becomes_one_record_of_one_split(images, tmp_path):
    result = build_data.build(job(images, tmp_path / "raw"))
    train, test = read(tmp_path / "raw", "train"), read(tmp_path / "raw", "test")

    assert {*train} | {*test} == {*NAMES} and not {*train} & {*test}
    assert counts(result) == {"train": len(train), "test": len(test)}
    assert not result["train"].left_out.reasons and not result["test"].left_out.reasons
    coffee = {**train, **test}["coffee.png"]
    assert coffee.keys() == {
        "file",
        "original_size",
        "rgb",
        "canny_edge",
        "color_palette",
        "metadata",
        "caption",
    }
    assert coffee["rgb"].shape == (64, 96, 3) and coffee["canny_edge"].shape == (64, 96)
    assert coffee["original_size"].tolist() == [400, 600]
    assert coffee["caption"] == ["a cup of coffee", "an espresso left of a spoon"]
    fields = shards.read_manifest(tmp_path / "raw", "train").fields
    assert (fields["canny_edge"]["labeler"], fields["canny_edge"]["axes"]) == ("canny_edge", "hw")


def test_a_name_decides_the_split_whatever_lies_beside_it():
    many = [f"{number}.jpg" for number in range(1_000)]
    both = build_data.divide(many, 0.05)

    assert 30 <= len(both["test"]) <= 70
    assert build_data.divide(many[::10], 0.05)["test"] == [
        name for name in many[::10] if name in both["test"]
    ]
    assert build_data.divide(many, 0)["test"] == []


def test_any_number_of_processes_writes_the_same_files(images, tmp_path):
    (images / "broken.jpg").write_bytes(b"no picture")
    build_data.build(job(images, tmp_path / "one"))
    first = build_data.build(job(images, tmp_path / "two", process_index=1, process_count=2))
    last = build_data.build(job(images, tmp_path / "two", process_index=0, process_count=2))

    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert None in counts(first).values() and None not in counts(last).values()


KILLED = """
import os, pathlib, signal, sys
from fourm_jax.labelers import base
from fourm_jax.jobs import build_data

def label(records):
    if any(record["file"] == "page.png" for record in records):
        os.kill(os.getpid(), signal.SIGKILL)
    return [{} for _ in records]

chosen = build_data.make_labelers(["rgb"], {}, 64)
chosen.append(base.Labeler(name="refusing", inputs=("file",), outputs={}, label=label))
images, output = map(pathlib.Path, sys.argv[1:])
build_data.build(build_data.Job(
    images=images, output=output, labelers=chosen, test_fraction=0, records_per_shard=2))
"""


def test_a_killed_build_continues_without_a_lost_or_doubled_record(images, tmp_path):
    (images / "broken.jpg").write_bytes(b"no picture")
    harmless, asked = refusing("nothing")
    labelers = [*build_data.make_labelers(["rgb"], {}, 64), harmless]

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(images), str(tmp_path / "killed")], cwd=ROOT, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="not finished"):
        shards.Reader(tmp_path / "killed", "train")
    build_data.build(job(images, tmp_path / "killed", labelers, test_fraction=0))
    assert sum(asked) == 2  # page.png and rocket.jpg: finished shards were not made again
    build_data.build(job(images, tmp_path / "whole", labelers, test_fraction=0))

    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_bad_pictures_are_listed_and_the_rest_goes_on(images, tmp_path):
    (images / "empty.jpg").write_bytes(b"")
    (images / "cut.png").write_bytes((PHOTOGRAPHS / "coffee.png").read_bytes()[:100_000])
    (images / "camera.txt").write_bytes("café".encode("latin-1"))
    os.close(os.open(os.fsencode(images) + b"/caf\xe9.png", os.O_CREAT))

    build_data.build(job(images, tmp_path / "raw", test_fraction=0))

    assert {*read(tmp_path / "raw", "train")} == {*NAMES} - {"camera.png"}
    assert listed(tmp_path / "raw") == {
        "caf\udce9.png": "the name is not UTF-8",
        "camera.png": "camera.txt is not readable: 'utf-8' codec can't decode byte 0xe9 in position"
        " 3: unexpected end of data",
        "cut.png": "unreadable picture: image file is truncated",
        "empty.jpg": "unreadable picture: none of JPEG, PNG, WEBP, BMP, TIFF, GIF, JPEG2000, AVIF",
    }
    assert all(str(one).isascii() for one in left_out.read(tmp_path / "raw", "train"))


def test_a_labeler_that_refuses_one_picture_labels_the_others_of_its_batch(images, tmp_path):
    labeler, asked = refusing("page.png")
    labelers = [*build_data.make_labelers(["rgb"], {}, 16), labeler]
    build_data.build(job(images, tmp_path / "raw", labelers, records_per_shard=8, test_fraction=0))

    assert {*read(tmp_path / "raw", "train")} == {*NAMES} - {"page.png"}
    (one,) = left_out.read(tmp_path / "raw", "train")
    assert (one.place, one.reason, one.message) == ("page.png", "refused_by_refusing", "not today")
    assert asked == [7, *[1] * 7]


@pytest.mark.parametrize("error", [IndexError("index 0 is out of bounds"), KeyError(2)])
def test_a_library_that_fails_on_one_picture_ends_no_job(images, tmp_path, error):
    def label(records):
        if any(record["file"] == "page.png" for record in records):
            raise error
        return [{} for _ in records]

    labeler = base.Labeler(name="sam", inputs=("file",), outputs={}, label=label)
    labelers = [*build_data.make_labelers(["rgb"], {}, 16), labeler]
    build_data.build(job(images, tmp_path / "raw", labelers, test_fraction=0))

    assert {*read(tmp_path / "raw", "train")} == {*NAMES} - {"page.png"}
    assert type(error).__name__ in listed(tmp_path / "raw")["page.png"]


def test_numbers_that_a_labeler_makes_are_checked_and_those_that_are_clipped_counted(
    images, tmp_path
):
    def label(records):
        corners = {"page.png": [10, 20, 300, 200], "rocket.jpg": [0.1, -0.02, 0.5, 0.5]}
        usual, flat = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.1]
        names = [record["file"].rpartition("/")[2] for record in records]
        boxes = [[corners.get(name, usual), flat] for name in names]
        return [{"det": {"boxes": np.array(b), "classes": ["cat"] * 2}} for b in boxes]

    labeler = base.Labeler(name="det", inputs=("rgb",), outputs={"det": base.Output()}, label=label)
    labelers = [*build_data.make_labelers(["rgb"], {}, 16), labeler]
    results = build_data.build(job(images, tmp_path / "raw", labelers, test_fraction=0))
    summary = results["train"].left_out
    assert summary.reasons == {"refused_by_det": 1}
    assert (summary.num_clipped, summary.num_records_clipped) == (1, 1)
    kept = results["train"].num_records
    assert (summary.num_empty, summary.num_records_with_empty) == (kept, kept)


def test_files_that_are_no_pictures_are_listed(images, tmp_path):
    (images / "phone.heic").write_bytes(b"heic")
    build_data.build(job(images, tmp_path / "raw", build_data.make_labelers(["rgb"], {}, 16)))

    (one,) = left_out.read(tmp_path / "raw", "train")
    assert (one.place, one.reason) == ("phone.heic", "unsupported_format")


def test_a_record_too_large_to_be_stored_is_listed(images, tmp_path, monkeypatch):
    monkeypatch.setattr(build_data, "MAX_BYTES", 64 * 70 * 3)
    labelers = build_data.make_labelers(["rgb"], {}, 64)
    build_data.build(job(images, tmp_path / "raw", labelers, test_fraction=0))

    found = listed(tmp_path / "raw")
    assert {*found} == {*NAMES} - {"astronaut.png", "camera.png"}
    assert "record of 18440 bytes, allowed: 13440" in found["chelsea.png"]


def test_a_shard_without_a_usable_picture_stops_nothing(images, tmp_path):
    for number in range(4):  # sorted to the front: the first two shards are empty
        (images / f"0{number}.jpg").write_bytes(b"no picture")
    result = build_data.build(job(images, tmp_path / "raw", test_fraction=0))

    assert counts(result) == {"train": len(NAMES)}
    assert result["train"].left_out.num_records == 4
    assert {*read(tmp_path / "raw", "train")} == {*NAMES}


def test_a_folder_of_other_pictures_or_settings_is_not_continued(images, tmp_path):
    build_data.build(job(images, tmp_path / "raw"))
    before = contents(tmp_path / "raw")

    with pytest.raises(ValueError, match=r"labeler rgb\.image_size: found 64, asked 32"):
        build_data.build(job(images, tmp_path / "raw", build_data.make_labelers(CLASSICAL, {}, 32)))
    (images / "page.png").unlink()
    with pytest.raises(ValueError, match="pictures: found"):
        build_data.build(job(images, tmp_path / "raw"))
    assert contents(tmp_path / "raw") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "images/raw"}, "raw lies inside the pictures"),
        ({"images": "nothing"}, "nothing: no such folder"),
        ({"test_fraction": 1.0}, r"test_fraction 1\.0, allowed"),
        ({"labelers": ()}, r"none of the labelers \[\] makes 'rgb', which records need"),
    ],
)
def test_wrong_folders_are_refused_before_anything_is_written(images, tmp_path, changes, message):
    changes = {k: tmp_path / v if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(ValueError, match=message):
        build_data.build(job(**{"images": images, "output": tmp_path / "raw", **changes}))
    assert not (tmp_path / "raw").exists() and not (images / "raw").exists()


def test_raw_records_become_tokens_of_several_crops_and_a_batch(images, tmp_path):
    build_data.build(job(images, tmp_path / "raw", test_fraction=0))
    config = pictures_config.get_config(f"tokenize,raw={tmp_path / 'raw'}").to_dict()
    names = [name for name in config["modalities"]["names"] if not name.startswith("tok_")]
    specs = registry.resolve("fourm", names)
    words = text.TextTokenizer.train(["astronaut", "a cup of coffee"], vocab_size=4608)
    words.save(tmp_path / "tokenizers" / "text")

    pretokenize.tokenize(
        pretokenize.Job(
            source=datasets.open_source(config["source"], "train", config["arguments"]),
            output=tmp_path / "tokens",
            split="train",
            recipe={},
        ),
        specs,
        tmp_path / "tokenizers",
        seed=config["seed"],
        crops=policy.make(config["crops"]),
    )
    dataset = datasets.Dataset(
        name="pictures",
        source=token_shards.make_source("train", directory=tmp_path / "tokens"),
        fields={name: name for name in names},
    )
    batch = next(pipeline.make_batches([dataset], specs, batch_size=len(NAMES), seed=0))

    assert batch["rgb@224"]["pixels"].shape == (7, 224, 224, 3)
    assert batch["rgb@224"]["pixels"].max() > 200
    assert all((batch[name]["length"] > 1).all() for name in TEXTS)
    lines = {words.decode(ids.tolist()) for ids in batch["caption"]["ids"]}
    assert any("astronaut" in line for line in lines)


def test_the_preview_shows_every_field_of_every_record(images, tmp_path):
    build_data.build(job(images, tmp_path / "raw", test_fraction=0))
    build_preview.draw(tmp_path / "raw", "train", tmp_path / "preview.png")

    records = read(tmp_path / "raw", "train")
    names = ["rgb", "canny_edge", "caption", "color_palette", "metadata"]
    rows = {name: build_preview.row(record, names) for name, record in records.items()}
    preview = np.asarray(Image.open(tmp_path / "preview.png"))
    np.testing.assert_array_equal(preview, np.concatenate([rows[name] for name in sorted(rows)]))
    for row in rows.values():
        cells = row.reshape(len(row), 5, panels.CELL, 3)
        assert (cells.std(axis=(0, 2)).max(-1) > 3).all()  # nothing is blank
    colors = records["astronaut.png"]["color_palette"][0]["6"]
    first = rows["astronaut.png"][60].reshape(5, panels.CELL, 3)[3, panels.GAP : -panels.GAP]
    width = len(first) / len(colors)
    stripes = [first[int((number + 0.5) * width)] for number in range(len(colors))]
    np.testing.assert_array_equal(stripes, colors)


def test_the_command_says_what_it_made_and_what_it_left_out(images, tmp_path):
    (images / "broken.jpg").write_bytes(b"no picture")
    command = [sys.executable, "-m", "experiments.build_data", f"--images={images}"]
    command += [f"--output={tmp_path / 'raw'}", "--image_size=32", "--labelers=rgb,caption"]

    done = subprocess.run(
        [*command, "--preview"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert "left out: broken.jpg: unreadable picture" in done.stdout
    assert "train records" in done.stdout and (tmp_path / "raw" / "preview.png").exists()

    wrong = subprocess.run(
        [*command, "--models=depth"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert wrong.returncode == 1
    assert wrong.stderr.strip() == (
        "error: --models=depth: expected LABELER=MODEL,… with each labeler once"
    )
