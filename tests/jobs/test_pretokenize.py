"""Raw digits -> token shards -> batches, with untrained tokenizers; killed, shared and resumed."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fourm_jax.data import datasets, pipeline
from fourm_jax.data.crops import fields as transforms
from fourm_jax.data.crops import policy
from fourm_jax.data.sources import digits, token_shards
from fourm_jax.data.storage import left_out, shard_writer
from fourm_jax.jobs import encoders, pretokenize
from fourm_jax.modalities import poses, registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import base, mlp, text
from tests.jobs import digit_tokenizers, untrained

SPECS = registry.FAMILIES["digits"]
RECIPE = {"source": "digits"}
CROPS = policy.CropPolicy(num_crops=3, size=(32, 32), scale=(0.3, 0.8))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Folder of tokenizers for the digits: random weights, learned words."""
    return digit_tokenizers.save(tmp_path_factory.mktemp("tokenizers"))


def job(output, num_records=10, **options):
    return pretokenize.Job(
        source=digits.make_source("train", num_records=num_records),
        output=output,
        split="train",
        recipe=RECIPE,
        records_per_shard=4,
        **options,
    )


def contents(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


class Faulty(digits.DigitSource):
    """Four bad records: damaged, of pictures of two sizes, of values and text out of range."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if index == 1:
            raise ValueError("record 1: cut short")
        if index == 4:
            record["edge"] = record["edge"][:16]
        if index == 5:
            record["metadata"] = {"brightnes": 1.0}
        if index == 8:
            record["edge"] = record["edge"].astype(np.int64) * 9
        return record


def with_source(job, source):
    return pretokenize.Job(**{**vars(job), "source": source})


def test_tokens_are_what_the_tokenizers_say(tokenizers, tmp_path):
    pretokenize.tokenize(job(tmp_path), SPECS, tokenizers)
    source = token_shards.make_source("train", directory=tmp_path)
    raw, record = digits.make_source("train")[9], source[9]

    assert len(source) == 10
    edges = base.load(tokenizers / "edge").encode(raw["edge"][None])[0]
    np.testing.assert_array_equal(record["tok_edge"], edges.reshape(64))
    np.testing.assert_array_equal(record["rgb"], raw["rgb"])
    words = text.TextTokenizer.load(tokenizers / "text")
    np.testing.assert_array_equal(
        record["caption"], words.encode_sequence(raw["caption"], max_tokens=99)[0]
    )
    assert record["metadata"].shape == record["metadata.chunk"].shape == (11,)
    np.testing.assert_array_equal(record["metadata.chunk"], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    assert record["tok_edge"].dtype == record["caption"].dtype == np.uint16


def test_the_manifest_tells_vocabularies_and_tokenizers(tokenizers, tmp_path):
    pretokenize.tokenize(job(tmp_path), SPECS, tokenizers)

    fields = token_shards.make_source("train", directory=tmp_path).fields
    assert fields["tok_rgb"] == {
        "dtype": "uint16",
        "shape": [64],
        "kind": "grid",
        "source": "rgb",
        "vocab_size": 256,
        "tokenizer": "rgb",
        "fingerprint": encoders.fingerprint(tokenizers / "rgb"),
    }
    assert fields["rgb"]["shape"] == [32, 32, 3]
    assert fields["caption"]["vocab_size"] == 4608


def raw_shards(folder, value):
    shutil.rmtree(folder, ignore_errors=True)
    records = [{"x": np.array([value], np.int32)}]
    shard_writer.write_split(folder, "train", {"source": "numbers"}, 1, lambda index: records)
    return token_shards.make_source("train", directory=folder)


def test_what_was_made_of_other_raw_records_is_no_beginning_and_no_result(tmp_path):
    def export(value):
        own = job(tmp_path / "data")
        source = raw_shards(tmp_path / "raw", value)
        return pretokenize.export(dataclasses.replace(own, source=source), ["x"])

    assert export(1).num_records == 1
    assert export(1).num_records == 1  # the same records again
    with pytest.raises(ValueError, match=r"holds another 'train' split \(content: found"):
        export(2)
    manifest = json.loads((tmp_path / "data" / "train.json").read_text())
    del manifest["recipe"]["content"]  # as older versions wrote it
    (tmp_path / "data" / "train.json").write_text(json.dumps(manifest))
    assert export(2).num_records == 1


def test_texts_of_another_length_are_no_beginning_of_these(tokenizers, tmp_path):
    captions = [spec for spec in SPECS if spec.name == "caption"]
    pretokenize.tokenize(job(tmp_path, num_records=4), captions, tokenizers)
    shorter = [spec.replace(max_tokens=5) for spec in captions]
    with pytest.raises(ValueError, match=r"\(forms\.caption\.max_tokens: found \d+, asked 5\)"):
        pretokenize.tokenize(job(tmp_path, num_records=4), shorter, tokenizers)


def test_texts_of_fewer_sentinels_than_masking_has_are_refused(tmp_path):
    text.TextTokenizer.train(["one"], vocab_size=4608, num_sentinels=100).save(tmp_path / "text")
    [caption] = [spec for spec in SPECS if spec.name == "caption"]
    with pytest.raises(ValueError, match=r"text: special tokens .* and 100 sentinels; .* 200"):
        encoders.make_encoder(caption, tmp_path, 0)


def test_vectors_that_are_not_finite_are_no_modality():
    encode = encoders.copy("poses", "poses")
    rows = [{"poses": np.full((2, 3), value, np.float32)} for value in (1.0, np.nan)]
    good, bad, absent = encode([*rows, {}], range(3))
    assert good["poses"] is rows[0]["poses"]
    assert absent == {}
    assert str(bad) == "modality 'poses' holds NaN or infinity"


def test_what_a_notebook_leaves_in_the_folder_of_a_tokenizer_makes_it_no_other(tmp_path):
    (tmp_path / "card.json").write_text("{}")
    before = encoders.fingerprint(tmp_path)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".DS_Store").write_bytes(b"1")
    assert encoders.fingerprint(tmp_path) == before


def test_training_reads_what_was_written(tokenizers, tmp_path):
    pretokenize.tokenize(job(tmp_path), SPECS, tokenizers)
    dataset = datasets.Dataset(
        name="digits",
        source=token_shards.make_source("train", directory=tmp_path),
        fields={spec.name: spec.name for spec in SPECS},
    )

    batch = next(pipeline.make_batches([dataset], SPECS, batch_size=10, seed=0))

    assert batch["rgb"]["pixels"].shape == (10, 32, 32, 3)
    assert batch["tok_rgb"]["present"].all()
    assert (batch["metadata"]["length"] == 11).all()


KILLED_ON_THE_WAY = """
import os, signal, sys
from fourm_jax.data.sources import digits
from tests.jobs import test_pretokenize as here

class Killed(here.Faulty):
    def __getitem__(self, index):
        if index == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)

tokenizers, output = sys.argv[1:]
job = here.with_source(here.job(output), Killed("train", num_records=10))
here.pretokenize.tokenize(job, here.SPECS, tokenizers, crops=here.CROPS)
"""


def test_any_number_of_processes_and_a_kill_give_the_same_files(tokenizers, tmp_path):
    """Of one device, killed; then of two processes with eight devices each; with bad records."""
    one, more = tmp_path / "one", tmp_path / "more"
    source = Faulty("train", num_records=10)
    alone = pretokenize.tokenize(with_source(job(one), source), SPECS, tokenizers, crops=CROPS)
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_ON_THE_WAY, str(tokenizers), str(more)],
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=pathlib.Path(__file__).parents[2],
    )
    left = {path.suffix for path in more.iterdir()}
    for index in range(2):
        shared = with_source(job(more, process_index=index, process_count=2), source)
        result = pretokenize.tokenize(shared, SPECS, tokenizers, crops=CROPS)

    assert killed.returncode == -9
    assert left == {".array_record", ".json", ".jsonl"}  # one shard of three with receipt and list
    assert contents(one) == contents(more)
    assert result == alone and result.num_records == 6
    assert [one.record for one in left_out.read(more, "train")] == [1, 4, 5, 8]
    captions = [record["caption"] for record in map(source.__getitem__, (0, 2, 3, 6, 7, 9))]
    words, read = text.TextTokenizer.load(tokenizers / "text"), token_shards.make_source
    written = read("train", directory=more)
    for index, caption in enumerate(captions):
        np.testing.assert_array_equal(
            written[index]["caption"], words.encode_sequence(caption, max_tokens=99)[0]
        )


def test_bad_records_are_listed_with_the_reason_and_the_rest_goes_on(tokenizers, tmp_path):
    broken = with_source(job(tmp_path), Faulty("train", num_records=10))
    result = pretokenize.tokenize(broken, SPECS, tokenizers)

    assert result.num_records == 6
    lines = (tmp_path / "train.left_out.jsonl").read_text().splitlines()
    listed = [json.loads(line) for line in lines]
    assert [(entry["place"], entry["record"], entry["reason"]) for entry in listed] == [
        ("record 1", 1, "unreadable_record"),
        ("record 4", 4, "bad_value"),
        ("record 5", 5, "bad_value"),
        ("record 8", 8, "bad_value"),
    ]
    assert listed[0]["message"] == "cut short"
    assert "'tok_edge': tokenizer 'edge' makes tokens (4, 8) of (16, 32)" in listed[1]["message"]
    assert "unknown metadata field 'brightnes'; did you mean" in listed[2]["message"]
    assert "'tok_edge': tokenizer 'edge' expects uint8" in listed[3]["message"]


def test_what_training_would_refuse_is_not_written(tokenizers, tmp_path):
    class Odd(digits.DigitSource):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return [record, {}, record | {"rgb": record["rgb"][:8]}, record | {"rgb": "red"}][index]

    odd = with_source(job(tmp_path), Odd("train", num_records=4))
    result = pretokenize.tokenize(odd, SPECS[:1], tokenizers)

    assert [one.message.partition(",")[0] for one in result.left_out.examples] == [
        "it has none of the modalities: nothing could be learned from it",
        "'rgb' has shape (8",
        "'rgb' is a str",
    ]
    assert len(token_shards.make_source("train", directory=tmp_path)) == 1


def test_numbers_that_are_clipped_are_counted_and_those_far_outside_listed(tokenizers, tmp_path):
    class Bright(digits.DigitSource):
        def __getitem__(self, index):
            brightness = [100.0, 260.0, 3000.0][index]
            return super().__getitem__(index) | {"metadata": {"brightness": brightness}}

    bright = with_source(job(tmp_path), Bright("train", num_records=3))
    specs = [spec for spec in SPECS if spec.name == "metadata"]
    result = pretokenize.tokenize(bright, specs, tokenizers)

    assert result.num_records == 2
    assert (result.left_out.num_clipped, result.left_out.num_records_clipped) == (1, 1)
    listed = [(one.record, one.reason, one.modality) for one in left_out.read(tmp_path, "train")]
    assert listed == [(1, "clipped", "metadata"), (2, "bad_value", "")]


def test_boxes_without_extent_are_counted_with_their_records(tmp_path, capsys):
    flat, whole = [0.1, 0.2, 0.1, 0.9], [0.1, 0.2, 0.3, 0.9]
    rows = [
        {"det": {"boxes": corners, "classes": ["dog"] * len(corners)}}
        for corners in ([whole], [flat, whole, flat], [flat])
    ]
    text.TextTokenizer.train(["dog"], vocab_size=4608).save(tmp_path / "tokenizers" / "text")
    specs = registry.resolve("scenes", ("det",))
    result = pretokenize.tokenize(
        with_source(job(tmp_path / "out"), rows), specs, tmp_path / "tokenizers"
    )
    assert result.num_records == 3
    assert (result.left_out.num_empty, result.left_out.num_records_with_empty) == (3, 2)
    assert (result.left_out.num_records, result.left_out.examples) == (0, ())
    listed = [
        (one.record, one.num_empty, one.kept) for one in left_out.read(tmp_path / "out", "train")
    ]
    assert listed == [(1, 2, True), (2, 1, True)]
    left_out.announce(tmp_path / "out", "train")
    said = capsys.readouterr().out
    assert "train: 3 boxes, humans or masks of 2 records had no width or height" in said


def test_poses_are_counted_on_a_picture_that_only_the_config_describes(tmp_path):
    thermal = {"kind": "pixels", "grid": (2, 2), "patch_size": 4, "num_channels": 1}
    added = {"thermal": {**thermal, "source": "thermal"}}
    specs = registry.resolve("fourm", ("thermal", "human_poses"), {}, added)
    a_little_outside = np.array([[0.1, 0.2, 1.001, 0.9]])
    human = poses.Poses(a_little_outside, *(np.zeros((1, width)) for width in (8, 9, 3, 10)))
    rows = [{"thermal": np.zeros((8, 8, 1), np.uint8), "human_poses": human}]
    text.TextTokenizer.train(["dog"], vocab_size=30_000).save(tmp_path / "tokenizers" / "text")
    result = pretokenize.tokenize(
        with_source(job(tmp_path / "out", num_records=1), rows), specs, tmp_path / "tokenizers"
    )
    assert (result.num_records, result.left_out.num_records) == (1, 0)
    assert result.left_out.num_clipped == 1


def test_vectors_of_whole_pictures_that_crops_share_are_announced(tokenizers, tmp_path, capsys):
    vectors = ModalitySpec(
        name="tok_whole",
        kind="global",
        vocab_size=16,
        max_tokens=4,
        source="dinov2_global",
        tokenizer="whole",
    )
    tokenizers = shutil.copytree(tokenizers, tmp_path / "tokenizers")
    untrained.save_any(tokenizers, "whole", "mlp", mlp.tiny()["vector_memcodes"])
    specs = [*(spec for spec in SPECS if spec.name == "tok_rgb"), vectors]

    class Described(digits.DigitSource):
        def __getitem__(self, index):
            vector = np.ones(6, np.float32)
            return super().__getitem__(index) | {"dinov2_global": vector}

    described = Described("train", num_records=2)
    pretokenize.tokenize(with_source(job(tmp_path / "whole"), described), specs, tokenizers)
    assert "tok_whole" not in capsys.readouterr().out
    cropped = with_source(job(tmp_path / "crops"), described)
    pretokenize.tokenize(cropped, specs, tokenizers, crops=CROPS)
    assert "'tok_whole' is of whole pictures: their crops share it" in capsys.readouterr().out
    rows = token_shards.make_source("train", directory=tmp_path / "crops")[0]["tok_whole"]
    assert (rows == rows[0]).all() and len(rows) == CROPS.num_crops


def test_what_refuses_every_record_is_refused(tokenizers, tmp_path):
    class Blind(digits.DigitSource):
        asked = 0

        def __getitem__(self, index):
            self.asked += 1
            raise ValueError("too dark")

    few, many = Blind("train", num_records=5), Blind("train", num_records=1000)
    with pytest.raises(ValueError, match=r"none of 5 .*; the first: record 0: too dark"):
        pretokenize.tokenize(with_source(job(tmp_path / "few"), few), SPECS[:1], tokenizers)
    with pytest.raises(ValueError, match="none of 16 records, tried all over the 1000 of 'train'"):
        pretokenize.tokenize(with_source(job(tmp_path / "many"), many), SPECS[:1], tokenizers)
    assert many.asked == 16 and not (tmp_path / "many").exists()


def test_every_crop_of_a_record_is_tokenized_as_a_record_of_its_own(tokenizers, tmp_path):
    pretokenize.tokenize(job(tmp_path), SPECS, tokenizers, crops=CROPS)
    record = token_shards.make_source("train", directory=tmp_path)[9]
    raw = digits.make_source("train")[9]

    settings = record["crop_settings"]
    np.testing.assert_array_equal(settings[0], [0, 0, 32, 32, 0])  # the centre crop
    assert len({tuple(row) for row in settings.tolist()}) == 3
    cropped = transforms.crop_record(raw, settings, (32, 32))
    pictures = np.stack([one["rgb"] for one in cropped])
    np.testing.assert_array_equal(record["rgb"], pictures)
    edges = base.load(tokenizers / "edge").encode(np.stack([one["edge"] for one in cropped]))
    np.testing.assert_array_equal(record["tok_edge"], edges.reshape(3, 64))
    assert (edges[0] != edges[1]).any()
    assert record["caption"].ndim == 1  # all crops share it
    assert record["metadata"].shape == (3, 11)  # drawn in another order for each


def test_training_sees_one_crop_of_all_modalities_at_a_time(tokenizers, tmp_path):
    pretokenize.tokenize(job(tmp_path), SPECS, tokenizers, crops=CROPS)
    source = token_shards.make_source("train", directory=tmp_path)
    fields = {spec.name: spec.name for spec in SPECS}
    dataset = datasets.Dataset(name="digits", source=source, fields=fields)
    stored = np.concatenate([source[index]["rgb"] for index in range(10)])
    edges = np.concatenate([source[index]["tok_edge"] for index in range(10)])

    batches = pipeline.make_batches([dataset], SPECS, batch_size=30, seed=0)
    batch = next(batches)

    seen = []
    for picture, ids in zip(batch["rgb"]["pixels"], batch["tok_edge"]["ids"], strict=True):
        [which] = np.flatnonzero((stored == picture).all((1, 2, 3)))
        np.testing.assert_array_equal(ids, edges[which])
        seen.append(which % 3)
    assert set(seen) == {0, 1, 2}
    np.testing.assert_array_equal(batch["metadata"]["length"], 11)


def test_stored_crop_settings_are_used_again(tokenizers, tmp_path):
    class Cropped(digits.DigitSource):
        def __getitem__(self, index):
            rows = [[0, 0, 32, 32, 0], [8, 4, 16, 20, 1], [0, 0, 8, 8, side]]
            return super().__getitem__(index) | {"crop_settings": np.array(rows)}

    side = 0
    again = with_source(job(tmp_path), Cropped("train", num_records=10))
    two = policy.CropPolicy(num_crops=2, size=(32, 32))
    edges = [spec for spec in SPECS if spec.name == "tok_edge"]
    pretokenize.tokenize(again, edges, tokenizers, crops=two)
    record = token_shards.make_source("train", directory=tmp_path)[0]
    np.testing.assert_array_equal(record["crop_settings"], [[0, 0, 32, 32, 0], [8, 4, 16, 20, 1]])

    more = policy.CropPolicy(num_crops=4, size=(32, 32))
    with pytest.raises(ValueError, match="first: record 0: 3 crops are stored, 4 were asked"):
        pretokenize.tokenize(
            pretokenize.Job(**{**vars(again), "output": tmp_path / "b"}),
            edges,
            tokenizers,
            crops=more,
        )
    side = 2
    with pytest.raises(ValueError, match=r"record 0: 'crop_settings' is .* flip 0 or 1"):
        pretokenize.tokenize(
            pretokenize.Job(**{**vars(again), "output": tmp_path / "c"}),
            edges,
            tokenizers,
            crops=two,
        )


def test_a_wrong_key_of_the_crops_is_named():
    assert policy.make({"num_crops": 0, "size": (32, 32)}) is None
    with pytest.raises(ValueError, match="key of crops 'num_crop'; did you mean 'num_crops'"):
        policy.make({"num_crop": 3})


def test_another_tokenizer_or_seed_does_not_continue_a_folder(tokenizers, tmp_path):
    pretokenize.tokenize(job(tmp_path), SPECS, tokenizers)

    with pytest.raises(ValueError, match="seed: found 0, asked 1"):
        pretokenize.tokenize(job(tmp_path), SPECS, tokenizers, seed=1)
    swapped = [spec.replace(tokenizer="edge") for spec in SPECS if spec.name == "tok_edge"]
    with pytest.raises(ValueError, match=r"modalities\.\w+"):
        pretokenize.tokenize(job(tmp_path), swapped, tokenizers)


def test_a_record_without_a_field_lacks_the_modality(tokenizers, tmp_path):
    class Silent(digits.DigitSource):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return {"edge": record["edge"]} if index % 2 else record

    silent = with_source(job(tmp_path), Silent("train", num_records=10))
    pretokenize.tokenize(silent, SPECS, tokenizers)
    source = token_shards.make_source("train", directory=tmp_path)

    assert source[1].keys() == {"tok_edge"}
    assert source[2].keys() == {*(spec.name for spec in SPECS), "metadata.chunk"}


def test_raw_fields_are_exported_for_tokenizer_training(tmp_path):
    pretokenize.export(job(tmp_path), ["edge", "caption", "metadata"])
    source = token_shards.make_source("train", directory=tmp_path)
    raw = digits.make_source("train")[5]

    assert source[5].keys() == {"edge", "caption", "metadata"}
    np.testing.assert_array_equal(source[5]["edge"], raw["edge"])
    assert (source[5]["caption"], source[5]["metadata"]) == (raw["caption"], raw["metadata"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "depth"}, r"no tokenizer at .*depth.*\['edge', 'rgb', 'text'\]"),
        ({"vocab_size": 128}, "256 ids, modality 'tok_edge' allows 128"),
        ({"grid": (4, 4)}, r"makes tokens \(8, 8\) of \(32, 32\), the modality has \(4, 4\)"),
        ({"grid": (4, 16)}, r"makes tokens \(8, 8\) of \(32, 32\), the modality has \(4, 16\)"),
        ({"source": "rgb"}, r"record 0: modality 'tok_edge': tokenizer 'edge' expects"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(tokenizers, tmp_path, changes, message):
    spec = next(spec for spec in SPECS if spec.name == "tok_edge").replace(**changes)

    with pytest.raises(ValueError, match=message):
        pretokenize.tokenize(job(tmp_path), [spec], tokenizers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_records": 11}, r"is 11: the source has 10 records of 'train', allowed: 1\.\."),
        ({"source": ()}, "the source has no record of 'train'"),
        ({"records_per_shard": 0}, "records_per_shard 0, must be at least 1"),
        ({"process_index": 2, "process_count": 2}, "process 2 of 2"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused(tokenizers, tmp_path, changes, message):
    wrong = pretokenize.Job(**{**vars(job(tmp_path)), **changes})
    with pytest.raises(ValueError, match=message):
        pretokenize.tokenize(wrong, SPECS[:1], tokenizers)
