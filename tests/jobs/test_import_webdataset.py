"""The published layout becomes shards that training reads, whoever writes them, however often."""

import io
import json
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from configs.data import cc12m
from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.data.published import file_decoders
from fourm_jax.data.sources import token_shards
from fourm_jax.jobs import import_webdataset
from fourm_jax.modalities import registry
from fourm_jax.tokenizers import text
from tests.jobs import published_tars

NAMES = ("rgb@224", "tok_rgb@224", "tok_dinov2_global", "caption", "det", "metadata")
TEXTS = ["a dog on the left", "a dog on the right", "two dogs 0 1 2 10 11 12"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Folder of a text tokenizer."""
    directory = tmp_path_factory.mktemp("words")
    text.TextTokenizer.train(TEXTS, vocab_size=4608, class_names=["dog"]).save(directory)
    return directory


@pytest.fixture
def job(tmp_path, words):
    def make(output="out", **options):
        arguments = {"modalities": NAMES, "text_tokenizer": str(words), **options}
        return import_webdataset.Job(
            input=str(tmp_path / "in"), output=str(tmp_path / output), split="train", **arguments
        )

    return make


def contents(directory):
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def read(job):
    return list(token_shards.make_source("train", directory=job.output))


@pytest.mark.parametrize("write", [published_tars.write, published_tars.write_folders])
def test_every_crop_of_a_record_is_kept_from_tars_and_from_folders(tmp_path, job, words, write):
    write(tmp_path / "in")

    result = import_webdataset.run(job())

    assert (result.num_records, result.left_out.num_records) == (3, 0)
    assert result.left_out.reasons == {}
    raw, record = published_tars.record(1), read(job())[1]
    assert record["key"] == "shard-00000/001"
    np.testing.assert_array_equal(record["crop_settings"], published_tars.CROPS)
    assert record["rgb"].tobytes() == raw["rgb"][1]
    ids = file_decoders.decode(*raw["tok_rgb@224"])
    np.testing.assert_array_equal(record["tok_rgb@224"], ids)
    assert record["tok_rgb@224"].dtype == np.uint16
    assert record["tok_dinov2_global"].shape == (2, 16)
    tokenizer = text.TextTokenizer.load(words)

    def said(field, crop):
        return tokenizer.decode_content(record[field][crop][: record[field + ".length"][crop]])

    assert [said("caption", 0), said("caption", 1)] == ["a dog on the left 1", "two dogs"]
    # The box, 32..48 x 24..48 of 64 x 48 pixels: in crop 0 (8 + 48, 48), in the mirrored crop 1.
    assert said("det", 0) == "v0=500 v1=500 v2=832 v3=999 dog"
    assert said("det", 1) == "v0=0 v1=500 v2=200 v3=999 dog"


def test_training_reads_the_shards_through_the_shipped_config(tmp_path, job):
    published_tars.write(tmp_path / "in", (3, 1))
    import_webdataset.run(job())
    config = cc12m.get_config(f"mix=mod21,data={job().output}").to_dict()
    datasets = sources.make_datasets([config], "train")
    specs = registry.resolve("fourm", NAMES)

    batches = pipeline.make_batches(datasets, specs, batch_size=16, seed=0, num_threads=0)
    batch = next(batches)

    assert batch["rgb@224"]["pixels"].shape == (16, 224, 224, 3)
    assert all(batch[name]["present"].all() for name in NAMES[:3])
    assert (batch["metadata"]["length"] == 5).all()
    records = read(job())
    stored = {
        row.tobytes(): (number, crop)
        for number, record in enumerate(records)
        for crop, row in enumerate(record["tok_rgb@224"])
    }
    drawn = [stored[row.tobytes()] for row in batch["tok_rgb@224"]["ids"]]
    assert {crop for _, crop in drawn} == {0, 1}  # training draws crops, not only the first
    for row, (number, crop) in enumerate(drawn):  # and the same one for every modality
        length = batch["det"]["length"][row]
        np.testing.assert_array_equal(
            batch["det"]["ids"][row, :length], records[number]["det"][crop]
        )
        level = 10 * int(records[number]["key"][-3:]) + 100 * int(records[number]["key"][10])
        assert abs(int(batch["rgb@224"]["pixels"][row].mean()) - level) <= 2


def test_the_config_names_every_field_of_the_published_models():
    for model, count in (("mod7", 8), ("mod21", 19)):
        config = cc12m.get_config(f"mix={model},data=somewhere")
        assert config.arguments.directory == "somewhere"
        assert len(config.fields) == count
        masked = {*config.mixture["input_alphas"], *config.mixture["target_alphas"]}
        assert masked <= {*config.fields}
    with pytest.raises(ValueError, match="'mod8'; did you mean 'mod7'"):
        cc12m.get_config("mix=mod8")


def test_an_import_says_once_which_files_lie_beside_the_shards(tmp_path, job, capfd):
    published_tars.write(tmp_path / "in", (2, 1))
    (tmp_path / "in" / "det" / "000.json").write_text("{}")
    result = import_webdataset.run(job(num_workers=2))
    assert (result.num_records, result.left_out.num_records) == (3, 0)
    said = [line for line in capfd.readouterr().out.splitlines() if "not read" in line]
    assert len(said) == 1
    assert "in/det: 1 file not read, such as '000.json': they lie beside shards" in said[0]


def test_pictures_without_crop_settings_are_one_centred_square(tmp_path, job):
    one = published_tars.npy(np.zeros(196, np.int32))
    published_tars.write(tmp_path / "in", (1,), {(0, 0, "tok_rgb@224"): (".npy", one)})

    import_webdataset.run(job(modalities=("rgb@224", "tok_rgb@224"), crop_settings=""))

    record = read(job())[0]
    np.testing.assert_array_equal(record["crop_settings"], [[0, 8, 48, 48, 0]])
    assert record["tok_rgb@224"].shape == (1, 196)


def test_a_caption_of_mirrored_tokens_is_mirrored_without_their_picture(tmp_path, job, words):
    caption = {(0, 0, "caption"): (".txt", b"a dog on the left")}
    published_tars.write(tmp_path / "in", (1,), caption, drop={(0, 0, "rgb")})

    import_webdataset.run(job(modalities=("tok_rgb@224", "caption"), pictures=""))

    tokenizer, record = text.TextTokenizer.load(words), read(job())[0]
    said = [tokenizer.decode_content(ids) for ids in record["caption"]]
    assert said == ["a dog on the left", "a dog on the right"]  # published_tars.CROPS


def test_an_import_without_pixels_is_not_taken_for_one_with_them(tmp_path, job):
    published_tars.write(tmp_path / "in", (1,))
    import_webdataset.run(job(modalities=("tok_rgb@224",)))  # pictures say how large crops may be

    with pytest.raises(ValueError, match="holds another 'train' split"):
        import_webdataset.run(job(modalities=("rgb@224", "tok_rgb@224")))
    dataset = sources.Dataset(
        name="in",
        source=token_shards.make_source("train", directory=job().output),
        fields={"rgb@224": "rgb"},
    )
    with pytest.raises(ValueError, match="modality 'rgb@224': unknown record field 'rgb'"):
        sources.check([dataset], registry.resolve("fourm", ["rgb@224"]))


def test_tokens_alone_need_neither_pictures_nor_crops(tmp_path, job):
    for number in range(2):
        path = tmp_path / "in" / "codes" / f"{number}.tar"
        published_tars.write_tar(path, [("x.npy", published_tars.npy(np.full((1, 16), number)))])

    import_webdataset.run(
        job(modalities=("tok_dinov2_global=codes",), pictures="", crop_settings="")
    )

    assert [r["tok_dinov2_global"].tolist() for r in read(job())] == [[0] * 16, [1] * 16]
    assert set(read(job())[0]) == {"key", "tok_dinov2_global"}


@pytest.mark.parametrize("folder", ["", "clevr"])
@pytest.mark.parametrize("versions", [1, 3])
def test_folders_of_files_with_several_versions_need_no_shard_and_no_crops(
    tmp_path, job, versions, folder
):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4096, (2, 2, versions, 196)).astype(np.int16)
    for number in range(2):
        texts = [f"a dog {number} {version}" for version in range(versions)]
        files = {
            "tok_rgb@224": (".npy", published_tars.npy(ids[number, 0])),
            "tok_depth@224": (".npy", published_tars.npy(ids[number, 1])),
            "scene": (".json", published_tars.dump(texts)),
        }
        for name, (ending, data) in files.items():
            path = tmp_path / "in" / name / folder / f"{number:05}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    modalities = ("tok_rgb@224", "tok_depth@224", "caption=scene")
    import_webdataset.run(job(modalities=modalities, pictures="", crop_settings=""))

    first, second = read(job())
    assert [first["key"], second["key"]] == [
        f"{folder}/0000{number}".strip("/") for number in range(2)
    ]
    expected = ids[1, 1] if versions > 1 else ids[1, 1, 0]
    np.testing.assert_array_equal(second["tok_depth@224"], expected)
    assert ("crop_settings" in first) == (versions > 1)
    captions = second["caption"].reshape(versions, -1)
    assert len({row.tobytes() for row in captions}) == versions


def test_embedded_captions_follow_the_crops(tmp_path, job):
    published_tars.write(tmp_path / "in", (2,))
    emb = np.zeros((2, 3, 4096), np.float16)
    emb[1, :, 0] = [5, 6, 7]
    valid = np.array([[1, 1, 0], [1, 0, 1]], bool)
    files = [
        ("000.npz", published_tars.npz(emb=emb, mask_valid=valid)),
        ("001.npz", published_tars.npz(emb=emb[1:], mask_valid=valid[1:])),
    ]
    published_tars.write_tar(tmp_path / "in" / "t5_caption" / "shard-00000.tar", files)

    import_webdataset.run(job(modalities=("t5_caption",)))

    two, one = read(job())
    assert two["t5_caption"].dtype == ml_dtypes.bfloat16
    assert two["t5_caption"][:, :, 0].tolist() == [[0, 0], [5, 7]]
    assert one["t5_caption"][:, 0].tolist() == [5, 7]  # one caption: stored once for all crops


def test_poses_and_instances_follow_the_crops(tmp_path, job):
    published_tars.write(tmp_path / "in", (1,))
    mask = {"points": [[[0, 0], [224, 0], [224, 224], [0, 224]]], "bbox": [[0, 0, 224, 224]]}
    masks = [{**mask, "token_ids": [[code] * 16]} for code in (3, 700)]
    for folder, value in (("human_poses", {}), ("sam_instance", masks)):
        path = tmp_path / "in" / folder / "shard-00000.tar"
        published_tars.write_tar(path, [("000.json", published_tars.dump(value))])

    import_webdataset.run(job(modalities=("human_poses", "sam_instance")))

    record = read(job())[0]
    # Crop 1 is mirrored: only the tokenizer of poses could mirror them, so it has none.
    assert record["human_poses.length"][0] > 1
    assert record["human_poses.length"][1] == 0
    tokenizer = text.TextTokenizer.load(job().text_tokenizer)
    for crop, code in enumerate(("v0=3", "v1=188")):  # seven points, one mask of 16 codes at each
        assert (record["sam_instance"][crop] == tokenizer.encode(code)).sum() >= 7 * 16


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_that_training_cannot_open_are_stored_as_pixels(tmp_path, job, mode):
    file = io.BytesIO()
    Image.new(mode, (64, 48), 90 if mode == "L" else (90, 90, 90)).save(file, "JPEG2000")
    published_tars.write(tmp_path / "in", (1,), {(0, 0, "rgb"): (".jpx", file.getvalue())})

    import_webdataset.run(job(modalities=("rgb@224",)))

    record = read(job())[0]
    np.testing.assert_array_equal(record["rgb"], np.full((48, 64, 3), 90))


def test_two_workers_or_two_machines_write_the_files_that_one_process_writes(tmp_path, job):
    drop = {(0, 1, "det"), (2, 0, "rgb")}
    published_tars.write(tmp_path / "in", (2, 1, 2, 1), drop=drop)

    alone = import_webdataset.run(job("one"))
    first = import_webdataset.run(job("machines", process_index=1, process_count=2))
    assert first.num_records is None
    machines = import_webdataset.run(job("machines", process_index=0, process_count=2))
    workers = import_webdataset.run(job("workers", num_workers=2))

    assert alone == machines == workers
    assert alone.left_out.reasons == {"missing_member": 2}
    assert contents(tmp_path / "one") == contents(tmp_path / "machines")
    assert contents(tmp_path / "one") == contents(tmp_path / "workers")


def test_kill_9_costs_no_record_no_line_and_leaves_nothing_behind(tmp_path, job):
    published_tars.write(tmp_path / "in", (2, 2, 2), drop={(0, 0, "det"), (1, 0, "det")})
    program = f"""
import os, signal
from fourm_jax.jobs import import_records, import_webdataset

convert = import_records.convert

def killed(key, files, rules):
    if key == "shard-00001/001":
        os.kill(os.getpid(), signal.SIGKILL)
    return convert(key, files, rules)

import_records.convert = killed
import_webdataset.run(import_webdataset.{job("killed")!r})
"""
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -signal.SIGKILL
    first = tmp_path / "killed" / "train-00000-of-00003.array_record"
    written = first.stat().st_mtime_ns

    resumed, whole = import_webdataset.run(job("killed")), import_webdataset.run(job("whole"))

    assert first.stat().st_mtime_ns == written  # what was finished was not done again
    assert resumed == whole
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_finished_import_is_reported_again_and_another_input_is_refused(tmp_path, job):
    published_tars.write(tmp_path / "in", (1,))
    result, before = import_webdataset.run(job()), contents(tmp_path / "out")

    assert import_webdataset.run(job()) == result
    assert contents(tmp_path / "out") == before
    with pytest.raises(ValueError, match="incomplete: found 'drop', asked 'keep'"):
        import_webdataset.run(job(incomplete="keep"))
    published_tars.write(tmp_path / "in", (30,))
    with pytest.raises(ValueError, match="input: found"):
        import_webdataset.run(job())


def test_another_seed_orders_metadata_differently(tmp_path, job):
    values = {"original_width": 64, "n_humans": 1, "brightness": 3.0, "entropy": 2.0, "contrast": 1}
    changed = {(0, 0, "metadata"): (".json", published_tars.dump(values))}
    published_tars.write(tmp_path / "in", (1,), changed)
    modalities = ("metadata",)

    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        import_webdataset.run(job(name, modalities=modalities, seed=seed))
        orders.append(read(job(name))[0]["metadata"].tolist())

    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]  # each crop draws its own order


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, "no modality to import"),
        ({"modalities": ("tok_rbg@224",)}, r"'tok_rbg@224'; did you mean 'tok_rgb@224'"),
        ({"modalities": ("tok_depth@224",)}, r"tok_depth@224: no such modality folder; found"),
        ({"modalities": ("rgb@224=pics",)}, "set by pictures="),
        ({"modalities": ("det=../det",)}, r"folder '\.\./det', allowed: names of folders"),
        ({"modalities": ("det=..",)}, r"folder '\.\.', allowed: names of folders"),
        ({"text_tokenizer": ""}, "'caption' is a text and needs a text tokenizer"),
        ({"pictures": ""}, "'rgb@224' needs the folder of the pictures"),
        ({"pictures": "", "modalities": ("det",)}, "'det' needs the folder of the pictures"),
        ({"pictures": "photos"}, r"photos: no such modality folder.*\(pictures='' if there are"),
        ({"crop_settings": "crops"}, r"crops: no such modality folder.*\(crop_settings=''"),
        ({"shards": "shard-9*"}, r"no shard or folder 'shard-9\*'"),
        ({"num_workers": 0}, "0 workers"),
        ({"process_index": 2, "process_count": 2}, "process 2 of 2"),
        ({"incomplete": "perhaps"}, r"'perhaps'.*\['drop', 'keep'\]"),
    ],
)
def test_a_job_that_cannot_be_done_writes_nothing(tmp_path, job, options, message):
    published_tars.write(tmp_path / "in", (1,))

    with pytest.raises(ValueError, match=message):
        import_webdataset.run(job(**options))

    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_more_words_than_the_modality_has_is_refused(tmp_path, job):
    published_tars.write(tmp_path / "in", (1,))
    text.TextTokenizer.train(TEXTS, vocab_size=30_001).save(tmp_path / "words")

    with pytest.raises(ValueError, match=r"30001 ids, modality 'caption' allows 30000"):
        import_webdataset.run(job(text_tokenizer=str(tmp_path / "words")))


def test_the_command_reports_and_ends_wrong_input_in_one_line(tmp_path, job):
    published_tars.write(tmp_path / "in", (2,), drop={(0, 1, "tok_rgb@224")})

    def command(*options):
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "experiments.import_webdataset",
                f"--input={tmp_path / 'in'}",
                f"--output={tmp_path / 'out'}",
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    good = command("--modalities=rgb@224,tok_rgb@224")
    bad = command("--modalities=rgb@224,tok_depth@224")

    assert good.returncode == 0
    assert "1 of 2 records" in good.stdout
    assert "1 x missing_member" in good.stdout
    lines = (tmp_path / "out" / "train.left_out.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["record"] == "shard-00000/001"
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: ") and bad.stderr.count("\n") == 1
