"""Text tokenizer: published numbers, layout, training, spans; and the command that trains it."""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer

from experiments.parity import text as verify
from fourm_jax.data.storage import shard_writer
from fourm_jax.modalities import boxes, metadata, metadata_fields, registry, serializers
from fourm_jax.modalities.parsed import Parsed
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.tokenizers import text, wordpiece
from tests import golden_cases

CAPTIONS = ["a red sphere left of a small blue cube", "a potted plant", "two red spheres!"]
S = [PUBLISHED.sentinel_id(i) for i in range(5)]
EOS = PUBLISHED.eos_id


@pytest.fixture(scope="module")
def tokenizer() -> text.TextTokenizer:
    return text.TextTokenizer.train(
        CAPTIONS, vocab_size=4300, class_names=["sphere", "potted plant"]
    )


@pytest.fixture(scope="module")
def published() -> text.TextTokenizer:
    """The published vocabulary is not part of the repository."""
    if "FOURM_TEXT_TOKENIZER" in os.environ:
        return text.TextTokenizer.load(os.environ["FOURM_TEXT_TOKENIZER"])
    file = golden_cases.FULL / "text" / "text_tokenizer_4m_wordpiece_30k.json"
    if not file.is_file():
        pytest.skip(
            "published vocabulary not found; set FOURM_TEXT_TOKENIZER to its JSON file "
            "(text_tokenizer_4m_wordpiece_30k.json)"
        )
    return text.TextTokenizer.load(file)


def read(path: pathlib.Path):
    return json.loads(path.read_text())


@golden_cases.FULL_SET
@pytest.mark.parametrize("name", ["encode", "vocab_facts", "postprocess"])
def test_the_published_vocabulary_behaves_as_recorded(name, published, monkeypatch):
    monkeypatch.setattr(verify, "tokenizer", lambda root: published)
    path = golden_cases.directory("text") / f"{name}.json"
    golden_cases.assert_all_pass(verify.CHECKS[path.name](path))
    assert published.vocabulary == PUBLISHED


@pytest.mark.parametrize("name", ["merge_spans", "decode_metadata"])
def test_spans_merge_and_metadata_reads_as_recorded(name):
    path = golden_cases.shipped("text") / f"{name}.json"
    golden_cases.assert_all_pass(verify.CHECKS[path.name](path))


def test_metadata_ids_mean_the_same_in_every_tokenizer_of_the_published_layout(tokenizer):
    for case in read(golden_cases.shipped("text") / "decode_metadata.json"):
        parsed = metadata.Metadata.from_text(
            tokenizer.decode_content(case["ids"]), metadata_fields.PUBLISHED, as_published=True
        )
        assert parsed.value.values == case["metadata"]
        assert not parsed.dropped


def test_a_trained_vocabulary_has_the_published_layout(tokenizer):
    assert tokenizer.vocabulary == PUBLISHED
    assert tokenizer.encode("[PAD] [UNK] [SOS] [EOS]").tolist() == [0, 1, 2, 3]
    assert tokenizer.encode("[S_0] [S_199] v0=0 v1=0 v3=999").tolist() == [4, 203, 204, 1204, 4203]
    assert tokenizer.encode("potted plant sphere").tolist() == [4204, 4205]  # alphabetical


def test_other_sentinel_and_bin_counts_move_the_layout():
    small = text.TextTokenizer.train(["a b"], vocab_size=60, num_sentinels=10, num_bins=5)
    assert small.vocabulary == TextVocabulary(num_sentinels=10, num_bins=5)
    assert small.encode("v0=0 v3=4").tolist() == [14, 33]


def test_all_ids_lie_below_the_stated_size_even_when_fewer_pieces_are_learned(tokenizer):
    assert tokenizer.vocab_size == 4300
    assert max(tokenizer.backend.get_vocab().values()) < 4300


def test_training_captions_have_no_unknown_words_and_come_back(tokenizer):
    for caption in CAPTIONS:
        ids = tokenizer.encode(caption)
        assert ids.dtype == np.int32
        assert PUBLISHED.unk_id not in ids
        assert tokenizer.decode_content([*ids, EOS, 0, 0]) == caption


def test_class_names_are_one_token_each_and_plain_decoding_leaves_them_out(tokenizer):
    ids = tokenizer.encode("a potted plant and a sphere")
    assert tokenizer.decode(tokenizer.encode("a red sphere")) == "a red"
    assert tokenizer.decode(tokenizer.encode("a red sphere"), keep_special=True) == "a red sphere"
    assert {4204, 4205} <= set(ids.tolist())


def test_content_ends_at_the_first_eos_and_has_no_control_tokens(tokenizer):
    ids = [2, S[1], *tokenizer.encode("v0=3 sphere"), 0, EOS, *tokenizer.encode("red")]
    assert tokenizer.decode_content(ids) == "v0=3 sphere"


def test_encoding_is_lowercase(tokenizer):
    assert tokenizer.encode("A RED cube").tolist() == tokenizer.encode("a red cube").tolist()


def test_the_order_of_the_texts_does_not_change_the_tokenizer(tokenizer):
    for captions in itertools.permutations(CAPTIONS):
        again = text.TextTokenizer.train(
            captions, vocab_size=4300, class_names=["potted plant", "sphere"]
        )
        assert again.backend.to_str() == tokenizer.backend.to_str()


def test_pieces_are_characters_then_merges_by_frequency_then_alphabet():
    # "ab" x3, "cb" x3: both first pairs occur 3 times, a < c.
    assert wordpiece.learn_pieces({"ab": 3, "cb": 3, "xy": 1}, 7) == [
        "a",
        "c",
        "x",
        "##b",
        "##y",
        "ab",
        "cb",
    ]
    # After "##bc" the pair (a, ##bc) is what is left; the outdated pair (a, ##b) has gone.
    assert wordpiece.learn_pieces({"abc": 2, "xbc": 3}, 9) == [
        "a",
        "x",
        "##b",
        "##c",
        "##bc",
        "xbc",
        "abc",
    ]


def test_repeated_neighbours_merge_from_the_left():
    # a ##a ##a ##a -> a ##aa ##a -> a ##aaa ("##aa" < "a") -> aaaa
    pieces = wordpiece.learn_pieces({"aaaa": 2}, 9)
    assert pieces == ["a", "##a", "##aa", "##aaa", "aaaa"]


def test_a_saved_tokenizer_loads_as_it_was(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = text.TextTokenizer.load(tmp_path)
    assert loaded.backend.to_str() == tokenizer.backend.to_str()
    assert (loaded.vocabulary, loaded.vocab_size) == (tokenizer.vocabulary, tokenizer.vocab_size)
    card = read(tmp_path / "card.json")
    assert (card["family"], card["vocab_size"]) == ("text", 4300)


def test_a_sequence_ends_with_eos_and_its_tokens_are_their_own_chunks(tokenizer):
    ids, chunk = tokenizer.encode_sequence("red sphere", max_tokens=8)
    assert ids.tolist() == [*tokenizer.encode("red sphere"), EOS]
    assert chunk.tolist() == [0, 1, 2]


def test_an_empty_sequence_is_eos_alone(tokenizer):
    for value in ("", []):
        for chunked in (False, True):
            ids, chunk = tokenizer.encode_sequence(value, max_tokens=8, chunked=chunked)
            assert (ids.tolist(), chunk.tolist()) == ([EOS], [0])


def test_a_caption_cannot_write_sentinels_or_its_own_end(tokenizer):
    hostile = "[SOS] red [S_1] v1=7 [EOS] sphere [PAD] ?"
    ids, _ = tokenizer.encode_sequence(hostile, max_tokens=8)
    assert ids.tolist() == [*tokenizer.encode("red v1=7 sphere ?"), EOS]
    chunked, chunk = tokenizer.encode_sequence([hostile, "[S_2]"], max_tokens=8, chunked=True)
    assert (chunked.tolist(), chunk.tolist()) == (ids.tolist(), [0, 0, 0, 0, 1])


def test_halves_of_characters_are_refused_by_what_they_stand_in(tokenizer):
    with pytest.raises(ValueError, match=r"'half \\ud83d of a smile' cannot be encoded"):
        tokenizer.encode("half \ud83d of a smile")


def test_chunks_stay_whole_when_a_sequence_is_too_long(tokenizer):
    chunks = ["v1=1 v0=5", "v1=2 v0=6", "v1=3 v0=7"]
    ids, chunk = tokenizer.encode_sequence(chunks, max_tokens=6, chunked=True)
    assert tokenizer.decode_content(ids) == "v1=1 v0=5 v1=2 v0=6"
    assert ids[-1] == EOS
    assert chunk.tolist() == [0, 0, 1, 1, 2]


def test_a_text_that_is_too_long_is_cut_before_its_eos(tokenizer):
    ids, chunk = tokenizer.encode_sequence("red red red", max_tokens=3)
    assert ids.tolist() == [*tokenizer.encode("red red"), EOS]
    assert chunk.tolist() == [0, 1, 2]


def test_chunks_of_a_modality_without_chunks_read_the_same(tokenizer):
    ids, chunk = tokenizer.encode_sequence(["v1=1", "v0=5 v0=6"], max_tokens=8)
    assert ids.tolist() == [*tokenizer.encode("v1=1 v0=5 v0=6"), EOS]
    assert chunk.tolist() == [0, 1, 2, 3]


@settings(max_examples=50)
@given(ids=st.lists(st.integers(0, 4299), max_size=40))
def test_any_ids_decode(tokenizer, ids):
    assert isinstance(tokenizer.decode(ids), str)
    assert isinstance(tokenizer.decode_content(ids), str)


@settings(max_examples=50)
@given(ids=st.lists(st.integers(0, 4299) | st.integers(1204, 1240), max_size=60))
def test_parsers_read_what_any_ids_say(tokenizer, ids):
    for form in serializers.names():
        assert isinstance(serializers.get(form).parse(tokenizer.decode_content(ids)), Parsed)


@pytest.mark.parametrize("ids", [[-1], [4300], [5, 99_999]])
def test_an_id_outside_the_vocabulary_is_named(tokenizer, ids):
    with pytest.raises(ValueError, match=rf"text id {ids[-1]}, allowed: 0\.\.4299"):
        tokenizer.decode(ids)


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="vocab_size 4204 leaves no room"):
        text.TextTokenizer.train(CAPTIONS, vocab_size=4204)
    with pytest.raises(ValueError, match="different characters, but room for 2 pieces"):
        text.TextTokenizer.train(CAPTIONS, vocab_size=4206)


def test_repeated_class_names_are_refused():
    with pytest.raises(ValueError, match="empty or repeated"):
        text.TextTokenizer.train(CAPTIONS, vocab_size=4300, class_names=["cube", "cube"])


CLASSES = ["cat", "Traffic Light", "TV", "tv", "café", "t-shirt", "Straße", "person's bag", "猫"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_name_comes_back_as_it_was_given(name, tmp_path):
    trained = text.TextTokenizer.train(["a cat"], vocab_size=4300, class_names=CLASSES)
    trained.save(tmp_path)
    given = boxes.Boxes(np.array([[0.1, 0.2, 0.3, 0.4]]), (name,)).to_text()
    for tokenizer in (trained, text.TextTokenizer.load(tmp_path)):
        ids, _ = tokenizer.encode_sequence(given, max_tokens=6)
        assert len(ids) == 6  # four coordinates, the name, [EOS]
        assert boxes.parse(tokenizer.decode_content(ids)).value.classes == (name,)


@pytest.mark.parametrize("name", ["a  b", "[EOS]", "cat v0=1", "##x", " cat"])
def test_a_class_name_that_would_be_lost_is_refused_when_the_tokenizer_is_trained(name):
    with pytest.raises(ValueError, match=r"class name .* is lost"):
        text.TextTokenizer.train(["a cat"], vocab_size=4300, class_names=[name])


OTHER_SCRIPTS = {
    "thai": "แมวสีดำตัวเล็กนั่งอยู่บนโต๊ะไม้ข้างหน้าต่าง" * 4,  # one word of 172 characters
    "hindi": "एक छोटी लाल गेंद हरी मेज़ पर रखी है",
    "arabic": "قِطَّةٌ سَوْدَاءُ عَلَى الطَّاوِلَة",
    "german": "ein roter ball unter der käsetheke",
}


@pytest.mark.parametrize("script", OTHER_SCRIPTS)
def test_captions_of_any_script_come_back_with_accents_and_vowel_signs(script):
    caption = OTHER_SCRIPTS[script]
    trained = text.TextTokenizer.train(OTHER_SCRIPTS.values(), vocab_size=4900)
    ids = trained.encode(caption)
    assert PUBLISHED.unk_id not in ids
    assert trained.decode_content(ids) == unicodedata.normalize("NFC", caption)


def test_an_unseen_word_of_a_script_without_spaces_is_read_character_by_character():
    trained = text.TextTokenizer.train(["แมวดำ"], vocab_size=4300)
    ids = trained.encode("มดำ")  # starts with a character that was inside before
    assert PUBLISHED.unk_id not in ids
    assert trained.decode_content(ids) == "มดำ"


def test_an_unknown_character_does_not_make_its_whole_word_unknown(tokenizer):
    pieces = tokenizer.decode_content(tokenizer.encode("red☕cube")).split()
    assert pieces == ["red", "[UNK]", "cube"]


def test_a_word_of_any_length_is_read():
    trained = text.TextTokenizer.train(["aba bab"], vocab_size=4300)
    assert PUBLISHED.unk_id not in trained.encode("ab" * 2_000)


def test_ascii_texts_read_as_with_the_published_normalizer():
    own = wordpiece.make_backend({"[UNK]": 0})
    normalizer = BertNormalizer(lowercase=True)
    for written in ["A Red cube,\tleft-of  it!", "x\x00y ~ [S_1]"]:
        assert own.normalizer.normalize_str(written) == normalizer.normalize_str(written)


def test_files_that_are_no_text_tokenizer_are_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no text tokenizer at"):
        text.TextTokenizer.load(tmp_path / "missing")
    for content in (b"\x80\x04pickle", b"{}", b""):
        (tmp_path / "file.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"file\.json is no(t valid JSON| tokenizer)"):
            text.TextTokenizer.load(tmp_path / "file.json")


def test_a_card_that_does_not_fit_its_tokenizer_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    card = read(tmp_path / "card.json")
    for change, message in (
        ({"vocab_size": 4100}, r"allowed: below vocab_size 4100"),
        ({"vocab_size": "many"}, "vocab_size is 'many', allowed: an integer"),
        ({"family": "vqvae"}, "no card of family 'text'"),
    ):
        (tmp_path / "card.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(ValueError, match=message):
            text.TextTokenizer.load(tmp_path)


def test_another_layout_is_refused(tokenizer, tmp_path):
    content = json.loads(tokenizer.backend.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary["v2=7"], vocabulary["v2=8"] = vocabulary["v2=8"], vocabulary["v2=7"]
    content["added_tokens"] = []
    (tmp_path / "file.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="token 'v2=7' has id 2212, expected 2211"):
        text.TextTokenizer.load(tmp_path / "file.json")


def test_a_record_of_scenes_becomes_ids_and_comes_back(tokenizer):
    record = {
        "caption": "a red sphere left of a small blue cube",
        "det": {"boxes": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), "classes": ["sphere"]},
        "color_palette": np.array([[1, 2, 3], [4, 5, 6]], np.uint8),
        "metadata": {"num_objects": 2, "brightness": 100.0, "camera_pitch": 20.0},
    }
    for source, value in record.items():
        serializer = serializers.get(registry.of_source(source).text_form)
        written = serializer.serialize(value, np.random.default_rng(0))
        ids, _ = tokenizer.encode_sequence(written, max_tokens=40, chunked=True)
        assert PUBLISHED.unk_id not in ids
        text_again = tokenizer.decode_content(ids)
        assert text_again == (written if isinstance(written, str) else " ".join(written))
        assert not serializer.parse(text_again).dropped


def test_the_command_trains_on_the_captions_of_a_source(tmp_path):
    command = [sys.executable, "-m", "experiments.train_text_tokenizer", "--records=digits"]
    subprocess.run([*command, "--num_records=40", f"--output={tmp_path}"], check=True)
    loaded = text.TextTokenizer.load(tmp_path)
    assert loaded.vocab_size == 4608
    assert loaded.decode_content(loaded.encode("a handwritten seven")) == "a handwritten seven"


def test_the_command_reads_every_caption_of_shards_and_skips_records_without_and_damage(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 5_000, np.uint8)  # which is not compressed
    rows = [
        {"caption": ["a red owl", "an owl"]},
        {"file": "b"},
        {"caption": "a blue fox"},
        {"caption": "a grey cat", "noise": noise},
    ]
    shard_writer.write_split(tmp_path / "raw", "train", {}, 1, lambda _: iter(rows))
    (shard,) = (tmp_path / "raw").glob("*.array_record")
    start = shard.read_bytes().index(noise[:64].tobytes())
    with shard.open("r+b") as file:
        file.seek(start)
        file.write(bytes(64))
    command = [sys.executable, "-m", "experiments.train_text_tokenizer", "--records=token_shards"]
    done = subprocess.run(
        [*command, f"--directory={tmp_path / 'raw'}", f"--output={tmp_path / 'text'}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "from 3 captions and 0 class names" in done.stdout
    assert "1 of 4 records left out; the first: " in done.stdout
    loaded = text.TextTokenizer.load(tmp_path / "text")
    assert loaded.decode_content(loaded.encode("an owl a blue fox")) == "an owl a blue fox"


@pytest.mark.parametrize(
    ("output", "vocab_size", "message"),
    [
        (
            "new",
            4204,
            "vocab_size 4204 leaves no room for word pieces, allowed: more than the 4204",
        ),
        (".", 4608, "exists and holds note.txt; choose another folder"),
    ],
)
def test_the_command_refuses_what_it_can_before_it_opens_the_records(
    tmp_path, output, vocab_size, message
):
    (tmp_path / "note.txt").touch()
    command = [sys.executable, "-m", "experiments.train_text_tokenizer", "--records=token_shards"]
    command += [f"--directory={tmp_path / 'none'}", f"--vocab_size={vocab_size}"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / output}"], capture_output=True, text=True
    )
    assert done.returncode == 1 and message in done.stderr


def test_the_command_names_a_source_that_there_is_not(tmp_path):
    command = [sys.executable, "-m", "experiments.train_text_tokenizer", "--records=digit"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'text'}"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "error: unknown data source 'digit'; did you mean 'digits'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_kill_left_of_a_tokenizer_is_replaced_and_other_files_are_not(tokenizer, tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "tokenizer.json").write_text("{")
    tokenizer.save(tmp_path / "cut")
    assert text.TextTokenizer.load(tmp_path / "cut").vocab_size == tokenizer.vocab_size
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(ValueError, match=r"exists and holds (cut|thesis\.doc)"):
        tokenizer.save(tmp_path)
    assert (tmp_path / "thesis.doc").exists()
