"""The published layout is read by name, and nothing hostile in it is opened."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fourm_jax.data.published import file_decoders
from fourm_jax.data.sources import webdataset
from fourm_jax.utils import picture_files

MODALITIES = {"rgb": "rgb", "tok": "tok_rgb@224", "caption": "caption", "crops": "crop_settings"}


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def png(size=(4, 2), mode="RGB"):
    file = io.BytesIO()
    image = Image.new(mode, size, 7)
    if mode == "P":
        image.putpalette([level // 3 for level in range(768)])
    image.save(file, "PNG")
    return file.getvalue()


def files(number):
    """Members of one record: {modality: (extension, bytes)}."""
    return {
        "rgb": (".png", png()),
        "tok_rgb@224": (".npy", npy(np.full((2, 3), number, np.int16))),
        "caption": (".json.gz", gzip.compress(json.dumps([f"text {number}"]).encode())),
        "crop_settings": (".npy", npy(np.array([[0, 0, 2, 2, 0]]))),
    }


def write_tar(path, named):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in named:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_shards(root, counts=(2, 1), drop=()):
    for shard, count in enumerate(counts):
        for modality in files(0):
            named = [
                (
                    f"{number:03d}{files(10 * shard + number)[modality][0]}",
                    files(10 * shard + number)[modality][1],
                )
                for number in range(count)
                if (modality, shard, number) not in drop
            ]
            write_tar(root / "train" / modality / f"shard-{shard:05d}.tar", named)


def write_folders(root, count=3):
    for number in range(count):
        for modality, (extension, data) in files(number).items():
            path = root / "train" / modality / "folder" / f"{number:03d}{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def open_source(root, **options):
    return webdataset.make_source("train", directory=root, modalities=MODALITIES, **options)


@pytest.mark.parametrize("write", [write_shards, write_folders])
def test_records_are_read_by_index_from_tars_and_from_folders(tmp_path, write):
    write(tmp_path)
    source = open_source(tmp_path)

    assert len(source) == 3
    record = source[1]
    assert record["caption"] == ["text 1"]
    np.testing.assert_array_equal(record["tok"], np.full((2, 3), 1))
    np.testing.assert_array_equal(record["rgb"], np.full((2, 4, 3), [7, 0, 0]))
    np.testing.assert_array_equal(record["crops"], [[0, 0, 2, 2, 0]])
    assert source.place(1).endswith("/001")


def test_shards_are_chosen_by_pattern(tmp_path):
    write_shards(tmp_path)

    assert [r["caption"] for r in open_source(tmp_path, shards="shard-00001")] == [["text 10"]]


def write_labels(root, folder, image):
    path = root / "train" / folder / "all" / "0.png"
    path.parent.mkdir(parents=True)
    image.save(path)


def test_classes_of_published_maps_count_from_1_and_void_is_0(tmp_path):
    stored = Image.fromarray(np.array([[0, 1], [132, 255]], np.uint8))
    stored.putpalette([level // 3 for level in range(768)])  # as published: colours of the classes
    for folder in ("semseg_coco", "semseg"):
        write_labels(tmp_path, folder, stored)
    names = {"semseg": "semseg_coco", "own": "semseg"}

    record = webdataset.make_source("train", directory=tmp_path, modalities=names)[0]

    assert record["semseg"].tolist() == [[1, 2], [133, 0]]
    assert record["semseg"].dtype == np.uint8
    assert record["own"].tolist() == [[0, 1], [132, 255]]  # a folder that nobody published
    source = webdataset.make_source(
        "train", directory=tmp_path, modalities=names, label_maps=("semseg",)
    )
    assert source[0]["own"].tolist() == [[1, 2], [133, 0]]


def test_what_is_no_map_of_classes_is_refused_by_name(tmp_path):
    write_labels(tmp_path, "semseg_coco", Image.new("RGB", (2, 2)))
    names = {"semseg": "semseg_coco"}
    source = webdataset.make_source("train", directory=tmp_path, modalities=names)
    message = r"0\.png.*: uint8 of shape \(2, 2, 3\), expected classes uint8 \[h, w\]"
    with pytest.raises(ValueError, match=message):
        source[0]


def test_tokens_of_other_files_or_of_other_labels_are_another_data_set(tmp_path):
    write_labels(tmp_path, "semseg_coco", Image.new("L", (2, 2)))
    options = {"directory": tmp_path, "modalities": {"semseg": "semseg_coco"}}

    def content(**more):
        return webdataset.make_source("train", **options, **more).content

    before = content()
    assert content() == before != content(label_maps=())
    Image.new("L", (64, 64)).save(tmp_path / "train" / "semseg_coco" / "all" / "0.png")
    assert content() != before


def test_a_missing_member_is_listed_and_pairs_no_strangers(tmp_path):
    write_shards(tmp_path, (3,), drop={("tok_rgb@224", 0, 1)})

    with pytest.raises(
        ValueError, match=r"1 of 3 .*allowed: 0.*shard-00000/001 has no tok_rgb@224"
    ):
        open_source(tmp_path)
    source = open_source(tmp_path, max_incomplete=1)

    assert [(int(r["tok"][0, 0]), r["caption"]) for r in source] == [
        (0, ["text 0"]),
        (2, ["text 2"]),
    ]
    assert len(source.left_out) == 1


def foreign(root, name):
    path = root / "train" / "tok_rgb@224" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"another program's")


@pytest.mark.parametrize(
    "name",
    [
        "folder/.DS_Store",
        ".ipynb_checkpoints/000-checkpoint.npy",
        "folder/._000.npy",
        "folder/.ipynb_checkpoints/000.npy",
        "folder/Thumbs.db",
        ".DS_Store",
        "__MACOSX/000.npy",
    ],
)
def test_what_other_programs_leave_in_a_folder_is_not_looked_at(tmp_path, name):
    write_folders(tmp_path)
    foreign(tmp_path, name)

    assert len(open_source(tmp_path)) == 3


def test_what_other_programs_leave_in_a_tar_is_not_looked_at(tmp_path):
    write_shards(tmp_path, (2,))
    named = [("._000.npy", b"mac"), *((f"{k:03}.npy", files(k)["tok_rgb@224"][1]) for k in (0, 1))]
    write_tar(tmp_path / "train" / "tok_rgb@224" / "shard-00000.tar", named)

    assert len(open_source(tmp_path)) == 2


def test_joined_tars_are_read_to_the_end(tmp_path):
    write_shards(tmp_path, (2, 0))
    for folder in files(0):
        path = tmp_path / "train" / folder / "shard-00000.tar"
        extension, data = files(7)[folder]
        write_tar(path.with_name("more.tar"), [(f"007{extension}", data)])
        path.write_bytes(path.read_bytes() + path.with_name("more.tar").read_bytes())

    source = open_source(tmp_path, shards="shard-00000")

    assert [record["caption"] for record in source] == [["text 0"], ["text 1"], ["text 7"]]


def test_what_follows_a_tar_and_is_none_is_refused(tmp_path):
    write_shards(tmp_path, (1,))
    path = tmp_path / "train" / "rgb" / "shard-00000.tar"
    path.write_bytes(path.read_bytes() + bytes(512) + b"something else" * 100)

    with pytest.raises(ValueError, match=r"what follows the end mark at byte \d+ of \d+ is no tar"):
        open_source(tmp_path)


def test_a_link_out_of_the_data_set_is_refused_and_one_within_is_followed(tmp_path):
    write_folders(tmp_path, 2)
    folder = tmp_path / "train" / "tok_rgb@224" / "folder"
    (folder / "000.npy").unlink()
    (folder / "000.npy").symlink_to(folder / "001.npy")
    assert open_source(tmp_path)[0]["tok"][0, 0] == 1

    outside = tmp_path / "secret.npy"
    outside.write_bytes(npy(np.zeros((2, 3), np.int16)))
    (folder / "000.npy").unlink()
    (folder / "000.npy").symlink_to(outside)
    with pytest.raises(ValueError, match=r"'000\.npy' is a link that leads out of "):
        open_source(tmp_path)


@pytest.mark.parametrize("write", [write_shards, write_folders])
def test_files_beside_shards_are_not_read_and_one_line_says_so(tmp_path, capsys, write):
    write(tmp_path)
    for name in ("7.npy", "8.npy", "README.md", ".DS_Store"):
        foreign(tmp_path, name)
    assert len(open_source(tmp_path)) == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert "train/tok_rgb@224: 3 files not read, such as '7.npy': they lie beside shards" in line
    open_source(tmp_path, shards="shard-00000" if write == write_shards else "folder")
    assert not capsys.readouterr().out


def test_files_without_a_folder_between_are_one_shard(tmp_path):
    for number in range(2):
        for modality, (extension, data) in files(number).items():
            path = tmp_path / "train" / modality / f"{number:03d}{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    source = open_source(tmp_path)

    assert [source[index]["tok"][0, 0] for index in range(2)] == [0, 1]
    assert source.place(1) == "001"


@pytest.mark.parametrize("name", ["../escape.npy", "/etc/passwd", "a/../../b.npy"])
def test_a_member_that_points_outside_is_refused(tmp_path, name):
    write_shards(tmp_path, (1,))
    write_tar(tmp_path / "train" / "rgb" / "shard-00000.tar", [(name, png())])

    with pytest.raises(ValueError, match=r"rgb/shard-00000\.tar: unsafe member name"):
        open_source(tmp_path)


def test_a_link_in_a_tar_is_refused(tmp_path):
    write_shards(tmp_path, (1,))
    with tarfile.open(tmp_path / "train" / "rgb" / "shard-00000.tar", "w") as tar:
        info = tarfile.TarInfo("000.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)

    with pytest.raises(ValueError, match=r"'000\.png' is not a plain file"):
        open_source(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 512 + 20])
def test_a_cut_tar_is_named(tmp_path, keep):
    write_shards(tmp_path, (1,))
    path = tmp_path / "train" / "rgb" / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(ValueError, match=r"rgb/shard-00000\.tar"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:1024],  # between the members: what is left looks complete
        lambda data: data[:1024] + b"\7" * 512 + data[1536:],
    ],
)
def test_a_tar_that_ends_too_early_is_refused_although_tarfile_takes_it(tmp_path, damage):
    write_shards(tmp_path, (2,))
    path = tmp_path / "train" / "rgb" / "shard-00000.tar"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ValueError, match=r"shard-00000\.tar: cut short or damaged at byte 1024"):
        open_source(tmp_path)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    write_shards(tmp_path, (1,))
    named = [("000.png", png()), ("000.jpg", png())]
    write_tar(tmp_path / "train" / "rgb" / "shard-00000.tar", named)

    with pytest.raises(ValueError, match="shard-00000/000 is there twice"):
        open_source(tmp_path)


def test_a_missing_or_empty_modality_folder_is_named(tmp_path):
    write_shards(tmp_path)

    with pytest.raises(ValueError, match=r"depth: no such modality folder; found: \['caption'"):
        webdataset.make_source("train", directory=tmp_path, modalities={"depth": "depth"})
    with pytest.raises(ValueError, match="no shard or folder 'shard-9'"):
        open_source(tmp_path, shards="shard-9")


def test_an_unreadable_member_names_file_and_member(tmp_path):
    write_shards(tmp_path, (1,))
    write_tar(tmp_path / "train" / "rgb" / "shard-00000.tar", [("000.png", png()[:30])])

    with pytest.raises(ValueError, match=r"rgb/shard-00000\.tar, member '000\.png': unreadable"):
        open_source(tmp_path)[0]


def test_pickles_are_never_opened():
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    data = npy(np.array([Trap()], object), allow_pickle=True)

    with pytest.raises(ValueError, match="allow_pickle"):
        file_decoders.decode(".npy", data)


def test_bombs_are_refused_before_they_unpack(monkeypatch):
    archive = io.BytesIO()
    np.savez_compressed(archive, zeros=np.zeros(10_000))
    text = gzip.compress(json.dumps("a" * 10_000).encode())
    picture = png((100, 100))
    monkeypatch.setattr(file_decoders, "MAX_BYTES", 1000)
    monkeypatch.setattr(file_decoders, "MAX_JSON_BYTES", 1000)
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 1000)

    for extension, data in (
        (".npz", archive.getvalue()),
        (".json.gz", text),
        (".json", b"[" + b"[]," * 334 + b"[]]"),
        (".png", picture),
    ):
        with pytest.raises(ValueError, match="1000"):
            file_decoders.decode(extension, data)


def test_damaged_files_of_every_type_are_value_errors():
    good = gzip.compress(b"[1, 2, 3]" * 50)
    liar = npy(np.zeros(3)).replace(b"(3,), }" + b" " * 4, b"(9000000000000,), }"[:11])

    for extension, data in (
        (".json.gz", good[:-20]),
        (".json.gz", good[:12] + b"xxxx" + good[16:]),
        (".json", b"{"),
        (".npy", b"\x93NUMPY"),
        (".npy", liar[:-4]),
        (".npz", b"PK"),
        (".txt", b"\xff\xfe"),
        (".jpg", b"\xff\xd8\xff"),
    ):
        with pytest.raises(ValueError):
            file_decoders.decode(extension, data)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        (".npy", npy(np.arange(3))),
        (".npz", npz(a=np.arange(3))),
        (".json", b'{"a": 1}'),
        (".json.gz", gzip.compress(b"[1]", mtime=0)),
    ],
)
def test_what_follows_the_end_of_a_file_is_not_left_unread(extension, data):
    file_decoders.decode(extension, data)
    for longer in (data + b"xx", data + data):
        with pytest.raises(ValueError):
            file_decoders.decode(extension, longer)


def test_an_array_that_claims_more_than_it_holds_reserves_no_memory():
    honest = npy(np.zeros((2, 3), np.float32))
    liar = honest.replace(b"(2, 3), }" + b" " * 9, b"(200000000, 3), } ")

    with pytest.raises(ValueError, match="needs 2400000000 bytes, found 24"):
        file_decoders.decode(".npy", liar)


def test_numbers_that_are_none_are_no_json():
    with pytest.raises(ValueError, match="NaN is no JSON value"):
        file_decoders.decode(".json", b'{"depth": NaN}')


def test_grey_pictures_and_palettes_keep_their_numbers():
    assert file_decoders.decode(".png", png(mode="P")).tolist() == [[7] * 4] * 2
    assert file_decoders.decode(".png", png(mode="L")).shape == (2, 4)


def test_an_unknown_file_type_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'\.pkl'.*'\.npy'"):
        file_decoders.decode(".pkl", b"")
