"""Whatever is wrong with an input is listed with file, record and reason; the rest goes on."""

import gzip
import os
import re
import tarfile

import numpy as np
import pytest

from fourm_jax.data.published import file_decoders
from fourm_jax.data.sources import token_shards
from fourm_jax.data.storage import left_out, records
from fourm_jax.jobs import import_webdataset
from fourm_jax.tokenizers import text
from fourm_jax.utils import picture_files
from tests.jobs import published_tars
from tests.jobs.published_tars import dump, npy

NAMES = ("rgb@224", "tok_rgb@224", "caption", "det", "metadata")
GOOD = published_tars.record(0)
CUT_GZIP = gzip.compress(b'"a dog"', mtime=0)[:-4]
IDS = np.zeros((2, 196), np.int16)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    directory = tmp_path_factory.mktemp("words")
    text.TextTokenizer.train(["a dog on the left"], vocab_size=4608).save(directory)
    return directory


@pytest.fixture
def run(tmp_path, words):
    """Import what lies in tmp_path/in; returns (summary, the list, records by key)."""

    def run(names=NAMES, **options):
        job = import_webdataset.Job(
            input=str(tmp_path / "in"),
            output=str(tmp_path / "out"),
            split="train",
            modalities=names,
            text_tokenizer=str(words),
            **options,
        )
        result = import_webdataset.run(job)
        lines = list(left_out.read(job.output, "train"))
        about_left_out = [line for line in lines if not line.num_clipped + line.num_empty]
        assert sum(result.left_out.reasons.values()) == len(about_left_out)
        assert sum(result.left_out.modalities.values()) == len(about_left_out)
        source = token_shards.make_source("train", directory=job.output)
        assert len(source) == result.num_records
        return result.left_out, lines, {record["key"][6:]: record for record in source}

    return run


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def ids_with(value):
    ids = np.array(IDS)
    ids[1, 7] = value
    return npy(ids)


def crops_with(**changes):
    names = ("top", "left", "height", "width", "flip")
    row = {"top": 0, "left": 0, "height": 48, "width": 64, "flip": 0, **changes}
    return npy(np.array([[row[name] for name in names]] * 2))


LYING = npy(IDS).replace(b"(2, 196), }" + b" " * 12, b"(2, 196000000000000), }"[:23])
ONE_VALUE = [  # (folder, extension, bytes, reason, part of the message)
    ("tok_rgb@224", ".npy", ids_with(16384), "id_outside_vocabulary", r"16384, allowed: 0\.\."),
    ("tok_rgb@224", ".npy", ids_with(-1), "id_outside_vocabulary", "1 ids like -1"),
    ("tok_rgb@224", ".npy", npy(IDS[:, 1:]), "wrong_token_count", r"\(2, 195\).*\(crops, 196\)"),
    ("tok_rgb@224", ".npy", npy(np.array(3)), "wrong_token_count", r"shape \(\)"),
    ("tok_rgb@224", ".npy", npy(IDS[:1]), "unequal_crops", "1 crops, the record has 2"),
    ("tok_rgb@224", ".npy", npy(IDS * 1.0), "wrong_type", "float64"),
    ("tok_rgb@224", ".json", b"[1, 2]", "wrong_type", "list"),
    ("tok_rgb@224", ".npy", npy(np.array([Trap()]), allow_pickle=True), "needs_pickle", "pickle"),
    ("tok_rgb@224", ".npy", npy(IDS)[:-1], "unreadable_array", "needs 784 bytes, found 783"),
    ("tok_rgb@224", ".npy", LYING, "unreadable_array", "needs 784000000000000 bytes"),
    ("tok_rgb@224", ".npy", b"", "unreadable_array", r"\.npy file of 0 bytes"),
    ("tok_rgb@224", ".pkl", b"(cos\nsystem", "unknown_file_type", r"'\.pkl'.*Allowed"),
    ("crop_settings", ".npy", crops_with(top=1), "bad_crops", r"inside a picture of \(48, 64\)"),
    ("crop_settings", ".npy", crops_with(left=-1), "bad_crops", "-1"),
    ("crop_settings", ".npy", crops_with(height=0), "bad_crops", "height, width >= 1"),
    ("crop_settings", ".npy", crops_with(flip=2), "bad_crops", "flip 0 or 1"),
    ("crop_settings", ".npy", npy(np.array([[2**63] * 4 + [0]], np.uint64)), "bad_crops", "inside"),
    ("crop_settings", ".npy", npy(np.uint8([[0, 100, 9, 200, 0]])), "bad_crops", "inside"),
    ("crop_settings", ".npy", npy(np.zeros((2, 4), int)), "bad_crops", r"\(2, 4\)"),
    ("crop_settings", ".npy", npy(np.ones((257, 5), int)), "bad_crops", "257 crops, allowed: 256"),
    ("crop_settings", ".npy", npy(np.zeros((0, 5), int)), "bad_crops", r"\(0, 5\)"),
    ("crop_settings", ".npy", npy(published_tars.CROPS * 1.0), "bad_crops", "float64"),
    ("crop_settings", ".json", b'{"a": [1]}', "bad_crops", "dtype"),
    ("rgb", ".jpg", GOOD["rgb"][1][:-20], "unreadable_picture", "truncated"),
    ("rgb", ".jpg", b"\xff\xd8\xff", "unreadable_picture", "3 bytes"),
    ("rgb", ".txt", b"hello", "unreadable_picture", "not a picture file"),
    ("caption", ".json", b'["a dog", ', "malformed_json", r"\.json file of 10 bytes"),
    ("caption", ".json", b"[" * 100_000, "malformed_json", "100000 bytes"),
    ("caption", ".json.gz", CUT_GZIP, "malformed_json", "end-of-stream"),
    ("caption", ".txt", b"\xff\xfe", "unreadable_text", "decode"),
    ("caption", ".json", dump({"text": "a dog"}), "bad_text", "caption of type dict"),
    ("caption", ".json", dump("a" * (2**20 + 1)), "too_large", "1048577 characters"),
    ("det", ".json", dump({"instances": [{"boxes": [0, 0, 1]}]}), "bad_text", "cannot reshape"),
    ("det", ".json", b'{"boxes": [[NaN, 0, 1, 1]], "classes": ["dog"]}', "malformed_json", "NaN"),
    ("caption", ".json", b'"\\ud800"', "bad_text", "crop 0"),
    ("metadata", ".json", dump({"heigth": 3}), "bad_text", "'heigth'"),
    ("metadata", ".json", dump({"n_humans": "many"}), "bad_text", "is 'many'"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "extension", "data", "reason", "message"), ONE_VALUE)
def test_a_bad_value_is_listed_and_its_record_dropped(
    tmp_path, run, folder, extension, data, reason, message
):
    published_tars.write(tmp_path / "in", (3,), {(0, 1, folder): (extension, data)})

    summary, (line,), written = run()

    assert list(written) == ["00000/000", "00000/002"]
    assert summary.reasons == {reason: 1}
    assert line.place == f"{folder}/shard-00000.tar"
    assert (line.record, line.modality) == ("shard-00000/001", folder)
    assert re.search(message, line.message)


def test_bombs_are_refused_before_they_unpack(tmp_path, run, monkeypatch):
    monkeypatch.setattr(file_decoders, "MAX_BYTES", 20_000)
    monkeypatch.setattr(file_decoders, "MAX_JSON_BYTES", 20_000)
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 48 * 64)
    bombs = {
        (0, 0, "rgb"): (".jpg", published_tars.jpeg(0, (48, 65))),
        (0, 1, "caption"): (".json.gz", gzip.compress(dump("a" * 20_000), mtime=0)),
        (0, 2, "tok_rgb@224"): (".npz", published_tars.npz(ids=np.zeros(20_001, np.uint8))),
        (0, 3, "det"): (".json", b" " * 20_001),
    }
    published_tars.write(tmp_path / "in", (5,), bombs)

    summary, lines, written = run()

    assert list(written) == ["00000/004"]
    assert summary.reasons == {"too_large": 4}
    assert [line.modality for line in lines] == ["rgb", "caption", "tok_rgb@224", "det"]


def test_a_missing_member_pairs_no_strangers(tmp_path, run):
    published_tars.write(tmp_path / "in", (3,), drop={(0, 1, "caption"), (0, 2, "crop_settings")})

    summary, lines, written = run()

    assert list(written) == ["00000/000"]
    assert summary.modalities == {"caption": 1, "crop_settings": 1}
    assert [(line.record[-3:], line.reason) for line in lines] == [
        ("001", "missing_member"),
        ("002", "missing_member"),
    ]


def test_incomplete_records_are_kept_on_demand_but_never_without_picture_or_crops(tmp_path, run):
    drop = {(0, 0, "rgb"), (0, 1, "crop_settings"), (0, 2, "caption")}
    changes = {(0, 3, "tok_rgb@224"): (".npy", npy(IDS - 1))}
    published_tars.write(tmp_path / "in", (5,), changes, drop)

    summary, lines, written = run(incomplete="keep")

    assert list(written) == ["00000/002", "00000/003", "00000/004"]
    assert written["00000/004"].keys() - written["00000/002"].keys() == {
        "caption",
        "caption.length",
    }
    assert written["00000/004"].keys() - written["00000/003"].keys() == {"tok_rgb@224"}
    assert (summary.num_incomplete, summary.num_records, len(lines)) == (2, 2, 4)


def test_all_that_is_wrong_with_a_record_is_listed(tmp_path, run):
    changes = {
        (0, 0, "tok_rgb@224"): (".npy", npy(IDS - 1)),
        (0, 0, "det"): (".json", b"{"),
    }
    published_tars.write(tmp_path / "in", (2,), changes, drop={(0, 0, "caption")})

    summary, _, _ = run()

    assert summary.reasons == {
        "id_outside_vocabulary": 1,
        "malformed_json": 1,
        "missing_member": 1,
    }
    assert summary.num_records == 1


def test_a_shard_that_some_modality_lacks_is_named_with_its_records(tmp_path, run):
    published_tars.write(tmp_path / "in", (2, 1))
    (tmp_path / "in" / "caption" / "shard-00000.tar").unlink()

    summary, lines, written = run()

    assert list(written) == ["00001/000"]  # read past an output shard without records
    assert summary.reasons == {"missing_member": 2, "missing_shard": 1}
    assert {line.place for line in lines} == {"caption/shard-00000.tar"}


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda data: data[:2570], 1),  # within the third member
        (lambda data: data[:1024], 2),  # between the first and the second: looks complete
        (lambda data: data[:1024] + b"\7" * 512 + data[1536:], 2),  # tarfile stops without a word
        (lambda data: b"no tar" * 1000, 3),
        (lambda data: b"", 3),
    ],
)
def test_a_damaged_tar_is_listed_with_every_record_that_it_costs(tmp_path, run, damage, lost):
    published_tars.write(tmp_path / "in", (3, 1))
    path = tmp_path / "in" / "caption" / "shard-00000.tar"
    path.write_bytes(damage(path.read_bytes()))

    summary, lines, written = run()

    assert summary.reasons == {"damaged_tar": 1, "missing_member": lost}
    assert list(written) == [f"00000/00{i}" for i in range(3 - lost)] + ["00001/000"]
    assert lines[0].record is None and lines[0].place == "caption/shard-00000.tar"


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("entry", "reason", "key"),
    [
        ("../000.json", "unsafe_name", "shard-00000/../000"),
        ("/000.json", "unsafe_name", "shard-00000/000"),
        (special("000.json", tarfile.SYMTYPE), "not_a_file", "shard-00000/000"),
        (special("000.json", tarfile.LNKTYPE), "not_a_file", "shard-00000/000"),
        (special("000.json", tarfile.CHRTYPE), "not_a_file", "shard-00000/000"),
        (special("000.json", tarfile.FIFOTYPE), "not_a_file", "shard-00000/000"),
    ],
)
def test_a_hostile_tar_entry_is_listed_and_never_followed(tmp_path, run, entry, reason, key):
    published_tars.write(tmp_path / "in", (2,))
    good = published_tars.record(1)["caption"][1]
    path = tmp_path / "in" / "caption" / "shard-00000.tar"
    published_tars.write_tar(path, [(entry, b""), ("001.json", good)])

    _, lines, written = run()

    assert list(written) == ["00000/001"]
    assert (lines[0].reason, lines[0].record) == (reason, key)
    # A record is listed once; under another name the entry leaves one that has no caption.
    assert [line.reason for line in lines[1:]] == (
        ["missing_member"] if entry == "../000.json" else []
    )


def test_a_size_that_leads_backwards_ends_the_tar(tmp_path, run):
    published_tars.write(tmp_path / "in", (2,))
    path = tmp_path / "in" / "caption" / "shard-00000.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("000.json")
        info.pax_headers = {"size": "-2048"}
        tar.addfile(info)

    with pytest.raises(ValueError, match=r"none of 2 records.*1 x damaged_tar"):
        run()


def test_a_key_that_is_there_twice_belongs_to_neither(tmp_path, run):
    published_tars.write(tmp_path / "in", (2,))
    good = published_tars.record(1)["caption"][1]
    path = tmp_path / "in" / "caption" / "shard-00000.tar"
    named = [("000.json", b'"a"'), ("000.txt", b"b"), ("000.json", b'"c"'), ("001.json", good)]
    published_tars.write_tar(path, named)

    summary, lines, written = run()

    assert list(written) == ["00000/001"]
    assert summary.reasons == {"duplicated_key": 2}
    assert "'000.json', '000.txt'" in lines[0].message


def test_what_is_no_file_in_a_folder_is_never_opened(tmp_path, run):
    published_tars.write_folders(tmp_path / "in", 2)
    path = tmp_path / "in" / "caption" / "shard-00000" / "000.json"
    path.unlink()
    os.mkfifo(path)  # would block whoever opens it

    _, (line,), written = run()

    assert list(written) == ["00000/001"]
    assert (line.reason, line.place) == ("not_a_file", "caption/shard-00000/000.json")


def test_a_record_too_large_to_store_is_listed(tmp_path, run, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, 48 * 64 * 3, np.uint8).tobytes()
    picture = published_tars.png(noise)
    published_tars.write(tmp_path / "in", (2,), {(0, 0, "rgb"): (".png", picture)})
    monkeypatch.setattr(records, "MAX_BYTES", 16_000)

    _, (line,), written = run()

    assert list(written) == ["00000/001"]
    assert (line.reason, line.modality) == ("too_large", "rgb")


def test_a_record_that_no_crop_has_anything_of_is_listed(tmp_path, run):
    mirrored = npy(np.array([[0, 0, 48, 48, 1]]))  # poses cannot be mirrored
    published_tars.write(tmp_path / "in", (2,), {(0, 0, "crop_settings"): (".npy", mirrored)})
    poses = [("000.json", b"{}"), ("001.json", b"{}")]
    published_tars.write_tar(tmp_path / "in" / "human_poses" / "shard-00000.tar", poses)

    _, (line,), written = run(("human_poses",))

    assert list(written) == ["00000/001"]
    assert (line.reason, line.record) == ("empty_record", "shard-00000/000")


def test_an_import_without_a_single_record_is_an_error(tmp_path, run):
    published_tars.write(tmp_path / "in", (1,), {(0, 0, "det"): (".json", b"{")})

    with pytest.raises(
        ValueError, match=r"none of 1 records .*1 x malformed_json.*train\.left_out\.jsonl"
    ):
        run()


def test_a_name_that_is_no_text_is_still_a_name(tmp_path, run):
    published_tars.write(tmp_path / "in", (1,))
    for folder, (extension, data) in published_tars.record(0).items():
        entry = (os.fsdecode(b"\xff") + extension, data)
        again = [entry] if folder == "det" else []
        path = tmp_path / "in" / folder / "shard-00000.tar"
        published_tars.write_tar(path, [entry, *again])

    _, (line,), written = run(incomplete="keep")

    assert list(written) == ["00000/\\xff"]
    assert (line.record, line.reason) == ("shard-00000/\\xff", "duplicated_key")


def test_boxes_slightly_outside_are_counted_and_listed_those_far_outside_left_out(
    run, tmp_path, capsys
):
    near, far = ([[-0.02, 0.1, 1.04, 0.9]], [[10, 20, 300, 200]])
    flat = [[0.5, 0.1, 0.5, 0.9]]
    changes = {
        (0, number, "det"): (".json", dump({"boxes": corners, "classes": ["dog"]}))
        for number, corners in enumerate((near, far, flat))
    }
    published_tars.write(tmp_path / "in", (4,), changes)
    summary, lines, found = run(("det",))
    assert len(found) == 3
    assert (summary.num_records, summary.num_clipped, summary.num_records_clipped) == (1, 2, 1)
    assert (summary.num_empty, summary.num_records_with_empty) == (1, 1)
    assert [(line.reason, line.modality, line.kept) for line in lines] == [
        ("clipped", "det", True),
        ("bad_text", "det", False),
        ("empty_box", "det", True),
    ]
    assert "box 0 is [10" in lines[1].message
    left_out.announce(tmp_path / "out", "train")
    said = capsys.readouterr().out
    assert "train: 2 numbers of 1 records lay slightly outside of their range" in said
