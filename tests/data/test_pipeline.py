"""Batch n is a function of (seed, n); what the data sets cannot feed is refused before a step."""

import io
import itertools

import absl.flags
import jax
import numpy as np
import pytest
from PIL import Image

from fourm_jax.data import datasets as sources
from fourm_jax.data import pipeline
from fourm_jax.data.crops import images
from fourm_jax.data.left_out_log import LeftOutLog, TooManyError
from fourm_jax.data.sources import fake, token_shards
from fourm_jax.data.storage import shard_writer
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.modalities.spec import ModalitySpec

IDS = ModalitySpec(name="ids", kind="grid", grid=(1, 2), vocab_size=1000)
WORDS = ModalitySpec(name="words", kind="sequence", max_tokens=5, vocab_size=70_000)
PAIRS = ModalitySpec(name="pairs", kind="sequence", max_tokens=5, vocab_size=100, chunked=True)
IMAGE = ModalitySpec(name="image", kind="pixels", grid=(2, 2), patch_size=4, num_channels=3)


class Records(list):
    """A source of given records."""


def numbered(count, offset=0):
    return Records({"n": np.array([offset + i, offset + i], np.uint16)} for i in range(count))


def make(source, name="numbers", fields=None, **options):
    return sources.Dataset(name=name, source=source, fields=fields or {"ids": "n"}, **options)


def first(datasets, count, specs=(IDS,), **options):
    batches = pipeline.make_batches(datasets, specs, **{"batch_size": 4, "seed": 0, **options})
    return list(itertools.islice(batches, count))


def rows(batches):
    return np.concatenate([batch["ids"]["ids"][:, 0] for batch in batches])


def assert_equal(batches, others):
    jax.tree.map(np.testing.assert_array_equal, batches, others)


def test_every_epoch_holds_each_record_once_in_another_order():
    seen = rows(first([make(numbered(12))], 6)).reshape(2, 12)

    assert (np.sort(seen) == np.arange(12)).all()
    assert (seen[0] != seen[1]).any()
    assert (seen[0] != np.arange(12)).any()


def test_another_seed_gives_another_order():
    assert (
        rows(first([make(numbered(12))], 3)) != rows(first([make(numbered(12))], 3, seed=1))
    ).any()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_hold_consecutive_blocks_of_the_same_global_batch(count):
    datasets = [make(numbered(12), weight=2.0), make(numbered(5, 100), name="b", index=1)]
    whole = first(datasets, 5, batch_size=8)

    parts = [
        first(datasets, 5, batch_size=8, process_index=i, process_count=count) for i in range(count)
    ]

    for batch, blocks in zip(whole, zip(*parts, strict=True), strict=True):
        assert_equal(batch, jax.tree.map(lambda *xs: np.concatenate(xs), *blocks))


def test_a_restart_continues_with_the_next_batch():
    datasets = [make(numbered(12)), make(numbered(5, 100), name="b")]

    assert_equal(first(datasets, 7)[4:], first(datasets, 3, start=4))


@pytest.mark.parametrize("options", [{"num_threads": 0}, {"num_threads": 3}])
def test_threads_change_nothing(options):
    assert_equal(first([make(numbered(12))], 5), first([make(numbered(12))], 5, **options))


def test_worker_processes_change_nothing_and_hand_on_what_was_bad(tmp_path):
    absl.flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags
    records = numbered(12)
    records[7] = {"n": np.array([7, 1000], np.uint16)}
    shard_writer.write_split(tmp_path, "train", {}, 2, lambda shard: records[6 * shard :][:6])
    datasets = [make(token_shards.make_source("train", directory=tmp_path))]
    here, there = LeftOutLog(1), LeftOutLog(1)

    batches = first(datasets, 5, left_out=here)

    assert_equal(batches, first(datasets, 5, num_workers=2, left_out=there))
    assert [log.count(before=5) for log in (here, there)] == [1, 1]


class Broken(Records):
    """Records of which some cannot be read."""

    def __init__(self, count, broken):
        super().__init__(numbered(count))
        self.broken = broken

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError(f"record {index}: damaged")
        return super().__getitem__(index)


def test_a_bad_record_gives_its_place_to_the_next_one_of_its_data_set_in_the_stream():
    whole = [make(numbered(40)), make(numbered(9, 100), name="b", weight=0.2)]
    broken = [make(Broken(40, {5, 17})), whole[1]]
    expected = rows(first(whole, 10))
    from_a = [value for value in rows(first(whole, 12)) if value < 100]
    following = {bad: from_a[from_a.index(bad) + 1] for bad in (5, 17)}
    for bad, other in following.items():
        expected[expected == bad] = following.get(other, other)

    seen = rows(first(broken, 10, left_out=LeftOutLog(2)))

    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("count", [2, 4])
def test_bad_records_leave_batches_a_function_of_their_number(count):
    datasets = [make(Broken(40, {2, 3, 5, 17, 31}))]
    whole = first(datasets, 6, batch_size=8, left_out=LeftOutLog(5))
    parts = [
        first(
            datasets, 6, batch_size=8, process_index=i, process_count=count, left_out=LeftOutLog(5)
        )
        for i in range(count)
    ]

    for batch, blocks in zip(whole, zip(*parts, strict=True), strict=True):
        assert_equal(batch, jax.tree.map(lambda *xs: np.concatenate(xs), *blocks))
    later = first(datasets, 2, batch_size=8, start=4, left_out=LeftOutLog(5))
    assert_equal(whole[4:], later)


def test_more_bad_records_than_tolerated_stop_the_run():
    datasets = [make(Broken(12, {2, 3, 5}))]
    with pytest.raises(TooManyError, match=r"3 left-out records, allowed: 2 .*, record [235]"):
        first(datasets, 6, batch_size=2, left_out=LeftOutLog(2))
    nothing_left = [make(Broken(4, {0, 1, 2, 3}))]
    with pytest.raises(
        ValueError, match=r"3 left-out records in one batch; the last: .*'numbers', rec"
    ):
        first(nothing_left, 1, left_out=LeftOutLog(2))
    with pytest.raises(
        ValueError, match=r"4 left-out records in one batch; the last: .*'numbers', rec"
    ):
        first(nothing_left, 1, left_out=LeftOutLog(100))
    with pytest.raises(ValueError, match=r"^data set 'numbers', record [235]: damaged"):
        first(datasets, 3)


def test_several_processes_count_their_bad_records_together(tmp_path):
    logs = [LeftOutLog(2, tmp_path, process_index=i, process_count=2) for i in range(2)]
    for log in logs:
        log.resume(0)
    found = [
        LeftOutRecord(place="a", record=record, reason="why", message="because")
        for record in range(3)
    ]

    logs[0].add(4, found[:1])
    logs[0].add(9, found[:1])  # the same again, in another epoch
    logs[1].add(2, found[:2])

    assert [log.count(before=5) for log in logs] == [2, 2]
    assert [log.count(before=4) for log in logs] == [2, 2]  # batch 2 met both
    with pytest.raises(TooManyError, match="3 left-out records, allowed: 2"):
        logs[0].add(6, found[2:])
    alone = LeftOutLog(2, tmp_path)  # one process goes on from batch 5
    alone.resume(5)
    assert alone.count(before=5) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["left_out-0.jsonl"]


CROPPED = np.array([[1, 1, 8, 8, 0], [0, 2, 8, 8, 1], [2, 0, 4, 4, 0]], np.int32)


def cropped(**changes):
    """A record of three crops: the ids of crop k are [10 k, 10 k], its words k + 1 times k."""
    words = [[4, 0, 0], [5, 5, 0], [0, 0, 0]]
    record = {
        "crop_settings": CROPPED,
        "n": np.array([[0, 0], [10, 10], [20, 20]], np.uint16),
        "w": np.array(words, np.uint16),
        "w.length": np.array([1, 2, 0], np.uint16),
        "png": np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3),
    }
    return record | changes


CROP_FIELDS = {"ids": "n", "words": "w", "image": "png"}


def test_a_record_of_several_crops_shows_the_same_one_of_every_modality():
    datasets = [make(Records([cropped()] * 8), fields=CROP_FIELDS)]
    picture = cropped()["png"]
    shown_crops = [
        images.crop_resize(picture, row[:4], (8, 8), "bicubic", bool(row[4])) for row in CROPPED
    ]
    batches = first(datasets, 4, specs=(IDS, WORDS, IMAGE), batch_size=8)

    crop = rows(batches) // 10
    assert set(crop) == {0, 1, 2}
    shown = np.concatenate([batch["image"]["pixels"] for batch in batches])
    np.testing.assert_array_equal(shown, np.stack(shown_crops)[crop])
    lengths = np.concatenate([batch["words"]["length"] for batch in batches])
    np.testing.assert_array_equal(lengths, np.array([1, 2, 0])[crop])
    words = np.concatenate([batch["words"]["ids"] for batch in batches])[:, :2]
    np.testing.assert_array_equal(words, np.array([[4, 0], [5, 5], [0, 0]])[crop])


def test_crops_are_drawn_from_seed_and_batch_number_alone():
    datasets = [make(Records([cropped()] * 8), fields=CROP_FIELDS)]
    options = {"specs": (IDS,), "batch_size": 8}
    whole = rows(first(datasets, 4, **options))
    halves = [first(datasets, 4, **options, process_index=i, process_count=2) for i in range(2)]

    np.testing.assert_array_equal(rows(itertools.chain(*zip(*halves, strict=True))), whole)
    np.testing.assert_array_equal(rows(first(datasets, 2, start=2, **options)), whole[16:])
    assert (rows(first(datasets, 4, seed=1, **options)) != whole).any()


def test_evaluation_shows_the_centre_crop_and_texts_may_be_shared():
    record = cropped(w=np.array([7, 8, 9], np.uint16))
    datasets = [make(Records([record]), fields=CROP_FIELDS)]

    [(batch, _)] = pipeline.one_pass(datasets, [IDS, WORDS, IMAGE], batch_size=1)

    np.testing.assert_array_equal(batch["ids"]["ids"], [[0, 0]])
    np.testing.assert_array_equal(batch["words"]["ids"][0], [7, 8, 9, 0, 0])
    np.testing.assert_array_equal(batch["image"]["pixels"][0], record["png"][1:9, 1:9])


def test_the_whole_picture_may_be_a_file_or_crops_made_before():
    picture = cropped()["png"]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    made = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (3, 4, 5)])
    forms = (np.frombuffer(file.getvalue(), np.uint8), made)
    expected = (picture[1:9, 1:9], made[0])

    for form, pixels in zip(forms, expected, strict=True):
        datasets = [make(Records([cropped(png=form)]), fields=CROP_FIELDS)]
        [(batch, _)] = pipeline.one_pass(datasets, [IMAGE], batch_size=1)
        np.testing.assert_array_equal(batch["image"]["pixels"][0], pixels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": np.zeros((2, 2), np.uint16)}, r"'ids': 'n' has shape \(2, 2\), expected 3 crops"),
        ({"w.length": np.array([1, 2], np.uint16)}, "needs their integer lengths in 'w.length'"),
        ({"w.length": np.array([9, 2, 0])}, "'w' has length 9 in crop 0, of 3 stored"),
        ({"crop_settings": CROPPED[:, :4]}, r"'crop_settings' has dtype int32 and shape \(3, 4\)"),
        ({"crop_settings": CROPPED - 2}, "expected rows of top, left >= 0"),
        (
            {"crop_settings": np.array([[1, 10, 2**15, 8, 0]] * 3)},
            r"not inside a picture of \(10, 10\)",
        ),
        ({"png": np.zeros(9, np.uint8)}, "'image': unreadable picture: none of JPEG"),
        (
            {"png": np.zeros((10, 10), np.uint8)},
            r"'image' has shape \(10, 10\), expected a picture",
        ),
    ],
)
def test_crops_that_do_not_fit_together_name_record_and_field(changes, message):
    datasets = [make(Records([cropped(**changes)]), fields=CROP_FIELDS)]

    with pytest.raises(ValueError, match=f"'numbers', record 0: .*{message}"):
        list(pipeline.one_pass(datasets, [IDS, WORDS, IMAGE], batch_size=1))


def test_data_sets_are_mixed_by_weight_and_carry_their_mixture():
    datasets = [
        make(numbered(50), weight=0.6),
        make(numbered(50, 100), name="b", weight=0.2, index=1),
        make(numbered(50, 200), name="c", weight=0.2, index=2),
    ]
    batches = first(datasets, 10, batch_size=10)
    mixture = np.concatenate([batch["mixture"] for batch in batches])

    np.testing.assert_array_equal(mixture, rows(batches) // 100)
    np.testing.assert_array_equal(np.bincount(mixture), [60, 20, 20])


def test_a_new_data_set_leaves_the_order_within_the_others():
    alone = rows(first([make(numbered(12))], 3))
    mixed = rows(first([make(numbered(12)), make(numbered(9, 100), name="b")], 6))

    np.testing.assert_array_equal(mixed[mixed < 100][:12], alone)


def test_absent_modalities_are_zeros_that_are_not_present():
    source = Records([{"n": np.array([7, 8], np.uint16)}, {"w": np.array([5, 3], np.int64)}])
    dataset = make(source, fields={"ids": "n", "words": "w"})

    [(batch, valid)] = pipeline.one_pass([dataset], [IDS, WORDS], batch_size=2)

    np.testing.assert_array_equal(batch["ids"]["ids"], [[7, 8], [0, 0]])
    np.testing.assert_array_equal(batch["ids"]["present"], [True, False])
    np.testing.assert_array_equal(batch["words"]["ids"], [[0, 0, 0, 0, 0], [5, 3, 0, 0, 0]])
    np.testing.assert_array_equal(batch["words"]["length"], [0, 2])
    np.testing.assert_array_equal(batch["words"]["chunk"], [[0, 1, 2, 3, 4]] * 2)
    assert batch["ids"]["ids"].dtype == np.uint16
    assert batch["words"]["ids"].dtype == np.int32
    assert valid.all()


def test_sequences_that_are_too_long_lose_tokens_or_whole_chunks():
    record = {
        "w": np.arange(7, dtype=np.uint16),
        "p": np.arange(7, dtype=np.uint16),
        "p.chunk": np.array([0, 0, 1, 1, 2, 2, 3], np.uint16),
    }
    dataset = make(Records([record]), fields={"words": "w", "pairs": "p"})

    [(batch, _)] = pipeline.one_pass([dataset], [WORDS, PAIRS], batch_size=1)

    assert batch["words"]["length"] == [5]
    assert batch["pairs"]["length"] == [4]  # the third pair does not fit
    np.testing.assert_array_equal(batch["pairs"]["chunk"], [[0, 0, 1, 1, 4]])


@pytest.mark.parametrize("chunk", [[1, 1, 2], [0, 2, 2], [0, 1, 0], [-1, 0, 0], [0.0, 0.0, 1.0]])
def test_chunks_that_do_not_count_up_are_refused(chunk):
    record = {"p": np.array([5, 6, 7], np.uint16), "p.chunk": np.array(chunk)}
    dataset = make(Records([record]), fields={"pairs": "p"})
    with pytest.raises(ValueError, match=r"'p\.chunk' is \[.*\], expected 0, 0, 1, …"):
        next(pipeline.one_pass([dataset], [PAIRS], batch_size=1))


def test_a_modality_that_no_record_has_is_told_by_the_schemas():
    full = numbered(3)
    full.fields = {"n": {"dtype": "uint16", "shape": [2], "vocab_size": 9}}
    empty = numbered(3)
    empty.fields = {"n": {"kind": "grid", "vocab_size": 9}}  # known, and in no record
    unknown = numbered(3)  # without a schema
    cases = (([empty], ["ids"]), ([full], []), ([empty, full], []), ([empty, unknown], []))
    for records, expected in cases:
        datasets = [make(source, name=str(i)) for i, source in enumerate(records)]
        assert sources.in_no_record(datasets, [IDS]) == expected


def test_ids_of_different_tokenizers_are_told_by_the_schemas():
    def made_by(name, fingerprint):
        source = numbered(3)
        source.fields = {"n": {"dtype": "uint16", "shape": [2], "fingerprint": fingerprint}}
        return make(source, name=name)

    one, other, same = made_by("one", "a"), made_by("other", "b"), made_by("same", "a")
    assert sources.of_several_tokenizers([one, other, same], [IDS]) == {
        "ids": ["one", "other", "same"]
    }
    assert sources.of_several_tokenizers([one, same, make(numbered(3))], [IDS]) == {}


def test_raw_fields_are_stacked_from_single_or_batched_sources():
    class Batched(Records):
        def records(self, indices):
            return {"n": np.stack([self[i]["n"] for i in indices])}

    options = {"batch_size": 4, "seed": 0}
    single = pipeline.make_raw_batches([make(numbered(12))], ["n"], **options)
    batched = pipeline.make_raw_batches([make(Batched(numbered(12)))], ["n"], **options)

    batch = next(single)
    np.testing.assert_array_equal(batch["n"], next(batched)["n"])
    np.testing.assert_array_equal(batch["n"][:, 0], rows(first([make(numbered(12))], 1)))


def test_pictures_are_decoded_only_when_the_run_wants_them(tmp_path, monkeypatch):
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    record = {"n": np.array([1, 2], np.uint16), "png": np.frombuffer(file.getvalue(), np.uint8)}
    datasets = [make(Records([record]), fields={"ids": "n", "image": "png"})]

    [(batch, _)] = pipeline.one_pass(datasets, [IDS, IMAGE], batch_size=1)
    np.testing.assert_array_equal(batch["image"]["pixels"], pixels[None])

    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded a picture"))
    assert len(list(pipeline.one_pass(datasets, [IDS], batch_size=1))) == 1


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (IDS, np.array([1, 1000], np.uint16), r"'ids' has id 1000, allowed: 0\.\.999"),
        (IDS, np.array([1, -1], np.int16), r"'ids' has id -1"),
        (IDS, np.array([1, 65536 + 5], np.int32), r"'ids' has id 65541"),
        (IDS, np.array([1], np.uint16), r"'ids' has shape \(1,\), expected \(2,\)"),
        (IDS, np.array([1.0, 2.0]), "'ids' has dtype float64"),
        (IDS, "a caption", "'ids' is a str, expected an array"),
        (WORDS, np.array([[1]], np.uint16), r"'words' has shape \(1, 1\)"),
        (PAIRS, np.array([1], np.uint16), r"needs a field 'x\.chunk'"),
        (IMAGE, np.zeros((8, 8, 3), np.float32), "'image' has dtype float32, expected uint8"),
        (IMAGE, np.zeros((4, 8, 3), np.uint8), r"'image' has shape \(4, 8, 3\)"),
        (IMAGE, np.zeros(20, np.uint8), "'image': unreadable picture: none of JPEG"),
    ],
)
def test_a_bad_value_stops_the_run_and_names_file_record_and_modality(
    tmp_path, spec, value, message
):
    good = fake.record([spec], np.random.default_rng(0))
    good = {name.replace(spec.name, "x"): array for name, array in good.items()}
    shard_writer.write_split(tmp_path, "train", {}, 1, lambda _: [good, {"x": value}])
    source = token_shards.make_source("train", directory=tmp_path)
    dataset = make(source, fields={spec.name: "x"})

    with pytest.raises(ValueError, match=f"'numbers'.*00000-of-00001.*record 1: .*{message}"):
        list(pipeline.one_pass([dataset], [spec], batch_size=2))


@pytest.mark.parametrize(
    ("fields", "extra", "message"),
    [
        ({"idz": "n"}, {}, "modality in the data 'ids'; did you mean 'idz'"),
        ({"ids": "m"}, {}, "'numbers', modality 'ids': unknown record field 'm'"),
        ({"ids": "n"}, {"vocab_size": 2000}, "vocabulary of 2000 ids, the modality has 1000"),
        ({"ids": "n"}, {"shape": [3]}, "3 tokens per record, the modality has 2"),
    ],
)
def test_shards_that_do_not_fit_the_model_are_refused_before_anything_is_read(
    tmp_path, fields, extra, message
):
    shard_writer.write_split(
        tmp_path, "train", {}, 1, lambda _: numbered(2), extra_fields={"n": extra}
    )
    source = token_shards.make_source("train", directory=tmp_path)

    with pytest.raises(ValueError, match=message):
        pipeline.make_batches([make(source, fields=fields)], [IDS], batch_size=1, seed=0)


def test_a_modality_that_no_record_of_a_split_has_is_absent_in_its_batches(tmp_path):
    schema = {"n": {"vocab_size": 1000}, "w": {"vocab_size": 70_000}}
    shard_writer.write_split(tmp_path, "train", {}, 1, lambda _: numbered(2), extra_fields=schema)
    source = token_shards.make_source("train", directory=tmp_path)
    dataset = make(source, fields={"ids": "n", "words": "w"})

    [(batch, _)] = pipeline.one_pass([dataset], [IDS, WORDS], batch_size=2)

    np.testing.assert_array_equal(batch["words"]["length"], [0, 0])
    np.testing.assert_array_equal(batch["ids"]["present"], [True, True])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": 3, "process_count": 2}, "batch size 3, allowed: positive multiples of 2"),
    ],
)
def test_batch_sizes_that_cannot_be_shared_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        first([make(numbered(4))], 1, **options)


def test_mixtures_need_data_and_positive_weights():
    with pytest.raises(ValueError, match="'numbers': weight 0"):
        first([make(numbered(4), weight=0)], 1)
    with pytest.raises(ValueError, match="no data set"):
        first([], 1, specs=())
