"""Files made to harm: each is refused by one line, before it costs time or memory."""

import bz2
import json
import tarfile
import zlib

import numpy as np
import pytest

from fourm_jax.convert import fourm_config, safetensors_io, tokenizer_config
from fourm_jax.data.published import file_decoders, layout
from fourm_jax.data.storage import left_out, records, shards
from fourm_jax.ops import posemb
from fourm_jax.tokenizers import card, text
from fourm_jax.tokenizers.card import Card
from fourm_jax.utils import errors, io, picture_files, plain_data

DEEP = b"[" * 100_000 + b"]" * 100_000
TRUNK = {"domains_in": ["rgb@224"], "domains_out": ["tok_depth@224"], "dim": 32, "num_heads": 2}
TRUNK |= {"encoder_depth": 1, "decoder_depth": 1}
TOKENIZER = {"n_channels": 3, "enc_type": "vit_s_enc", "dec_type": "vit_s_dec", "latent_dim": 8}
TOKENIZER |= {"codebook_size": 16}


def zip_of(packed, method, claimed):
    """A zip file of one entry whose directory claims an unpacked size."""
    sizes = (0).to_bytes(4, "little") + len(packed).to_bytes(4, "little")
    sizes += claimed.to_bytes(4, "little") + (5).to_bytes(2, "little") + bytes(2)
    common = (20).to_bytes(2, "little") + bytes(2) + method.to_bytes(2, "little") + bytes(4) + sizes
    local = b"PK\3\4" + common + b"a.npy" + packed
    central = b"PK\1\2" + bytes(2) + common + bytes(14) + b"a.npy"
    end = b"PK\5\6" + bytes(4) + (1).to_bytes(2, "little") * 2
    end += len(central).to_bytes(4, "little") + len(local).to_bytes(4, "little") + bytes(2)
    return local + central + end


def header(value):
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(content).to_bytes(8, "little") + content


def test_an_npz_is_unpacked_to_its_limit_whatever_it_claims(monkeypatch):
    monkeypatch.setattr(file_decoders, "MAX_BYTES", 10_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(10**6)) + packer.flush()
    with pytest.raises(ValueError, match=r"unpacks to more than 10000 bytes|Bad CRC"):
        file_decoders.decode(".npz", zip_of(packed, 8, claimed=100))
    with pytest.raises(ValueError, match="unpacks to more than 10000 bytes"):
        file_decoders.decode(".npz", zip_of(packed, 8, claimed=10**6))


def test_an_npz_of_a_method_that_cannot_be_bounded_is_refused():
    packed = zip_of(bz2.compress(bytes(10**6)), 12, claimed=100)
    with pytest.raises(ValueError, match=r"'a\.npy' is packed by another method than deflate"):
        file_decoders.decode(".npz", packed)


def test_an_npz_of_very_many_arrays_is_refused_before_they_are_counted(monkeypatch):
    monkeypatch.setattr(file_decoders, "MAX_ARRAYS", 0)
    with pytest.raises(ValueError, match="directory of 51 bytes, allowed: 0"):
        file_decoders.decode(".npz", zip_of(b"", 0, claimed=0))


def write_tar(folder, blocks):
    (folder / "rgb").mkdir()
    (folder / "rgb" / "s.tar").write_bytes(blocks + bytes(1024))
    return layout.index_shard(folder / "rgb", "s")


def test_a_tar_of_thousands_of_chained_long_names_is_listed_as_damaged(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3
    name = info.tobuf(tarfile.GNU_FORMAT) + b"ab\0".ljust(512, b"\0")
    index = write_tar(tmp_path, name * 1500)
    assert not index.files
    assert [one.reason for one in index.left_out] == ["damaged_tar"]


def test_attributes_of_a_tar_member_are_bounded(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 10**6
    index = write_tar(tmp_path, info.tobuf(tarfile.USTAR_FORMAT) + b"1" * 10**6)
    assert not index.files
    assert "header of 1000000 bytes, allowed: 8192" in index.left_out[0].message


def test_a_link_out_of_the_data_set_is_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "data" / "caption" / "part"
    folder.mkdir(parents=True)
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    index = layout.index_shard(folder.parent, "part")
    assert not index.files
    assert [one.reason for one in index.left_out] == ["unsafe_link"]


@pytest.mark.parametrize("size", [[9_999_999_999] * 200_000, [1] * 33])
def test_a_shape_of_many_axes_is_refused_before_it_is_multiplied(tmp_path, size):
    content = header({"a": {"dtype": "U8", "shape": size, "data_offsets": [0, 0]}})
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors: .*'a' has \d+ axes, allowed: 32"):
        safetensors_io.SafeFile(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a record"):
        records.decode(content)


@pytest.mark.parametrize("dtype", [[], {}, None, 3])
def test_a_type_that_is_no_text_is_refused(tmp_path, dtype):
    content = header({"a": {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}})
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors: .*tensor 'a' has dtype"):
        safetensors_io.SafeFile(tmp_path / "x.safetensors")


def test_deep_json_is_refused_wherever_it_stands(tmp_path):
    (tmp_path / "x").write_bytes(DEEP)
    (tmp_path / "x.safetensors").write_bytes(header(b'{"a":' + DEEP + b"}"))
    field = {"t:json": {"dtype": "U8", "shape": [len(DEEP)], "data_offsets": [0, len(DEEP)]}}
    for read in (
        lambda: io.read_json(tmp_path / "x"),
        lambda: file_decoders.decode(".json", DEEP),
        lambda: safetensors_io.SafeFile(tmp_path / "x.safetensors"),
        lambda: records.decode(header(field) + DEEP),
        lambda: Card.read(tmp_path / "x"),
        lambda: text.TextTokenizer.load(tmp_path / "x"),
        lambda: list(left_out.read_lines(tmp_path / "x")),
    ):
        with pytest.raises(ValueError, match=r"recursion|nested deeper"):
            read()


def test_json_may_be_64_levels_deep_and_no_deeper():
    assert io.parse_json("[" * 64 + "]" * 64, "it")
    with pytest.raises(ValueError, match="it is not valid JSON: nested deeper than 64"):
        io.parse_json('{"a":' + "[" * 64 + "]" * 64 + "}", "it")


@pytest.mark.parametrize(
    "value", ["[" * 4000, "{[a]: b}", "2001-99-99", "[&a [x], *a]", "!!python/name:os.system"]
)
def test_metadata_that_yaml_cannot_read_are_refused(value):
    with pytest.raises(ValueError, match="header: metadata 'dim' cannot be parsed"):
        safetensors_io.parse_metadata({"dim": value}, "header")


def test_metadata_of_many_values_are_refused_before_they_are_parsed():
    with pytest.raises(ValueError, match="metadata of 108000 characters, allowed: 100000"):
        safetensors_io.parse_metadata({str(number): "x" * 9000 for number in range(12)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"decoder_depth": 10**12},
            "decoder_depth is 1000000000000, allowed: an integer in 1 … 512",
        ),
        ({"dim": "32"}, "dim is '32', allowed: an integer"),
        ({"num_heads": True}, "num_heads is True, allowed"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan, allowed: a number in 0 … 64"),
        ({"domains_in": 3}, "domains_in is 3, allowed: a list"),
        ({"domains_in": [[]]}, r"domains_in is \[\[\]\], allowed: a list"),
        ({"act_layer": []}, r"act_layer is \[\], allowed: a text"),
        ({"image_size": 0}, "image_size is 0, allowed"),
    ],
)
def test_a_trunk_config_out_of_bounds_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        fourm_config.to_model({**TRUNK, **change})


def test_overrides_of_modalities_are_bounded():
    for fields in ({"vocab_size": 10**12}, {"grid": [10**9, 10**9]}, [], {"grid": {"a": 1}}):
        with pytest.raises(ValueError, match="overrides is"):
            fourm_config.to_model(TRUNK, overrides={"tok_depth@224": fields})


@pytest.mark.parametrize("key", ["patch_size", "image_size", "latent_dim", "codebook_size"])
@pytest.mark.parametrize("value", [0, -1, 10**12, "8", 1.5, []])
def test_a_tokenizer_config_out_of_bounds_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"config: {key} is"):
        tokenizer_config.arguments_of({**TOKENIZER, key: value})


def test_arguments_on_a_card_are_bounded():
    card.check_arguments({"encoder": {"dim": 768, "depth": 12}, "image_size": [224, 224]}, "x")
    for arguments, message in (
        ({"encoder": {"depth": 10**6}}, "card.json: depth is 1000000, allowed: .* -512 … 512"),
        ({"image_size": [224, 10**9]}, "card.json: image_size is 1000000000"),
        ({"signal": {"mean": float("inf")}}, "card.json: mean is inf"),
        ({"loss": "a" * 20_000}, "card.json: loss is 'aaa"),
    ):
        with pytest.raises(ValueError, match=message):
            card.check_arguments(arguments, "card.json")


def test_whatever_a_builder_raises_names_the_file():
    with pytest.raises(ValueError, match=r"card\.json: ZeroDivisionError: division"):  # noqa: SIM117
        with errors.described_by("card.json"):
            1 / 0  # noqa: B018
    with (
        pytest.raises(ValueError, match=r"^card\.json: too large$"),
        errors.described_by("card.json"),
    ):
        raise ValueError("card.json: too large")


SPLIT = {
    "type": "Split",
    "pattern": {"Regex": r"[\x{61}]"},
    "behavior": "Isolated",
    "invert": False,
}
PARTS = [
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}),
    ("pre_tokenizer", {**SPLIT, "pattern": {"Regex": "a*"}}),
    ("pre_tokenizer", {**SPLIT, "pattern": {"Regex": "[a]*[a]*[a]*b"}}),
    ("pre_tokenizer", {**SPLIT, "pattern": {"String": "a"}}),
    ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "FixedLength"}]}),
    ("decoder", {"type": "Strip", "content": "a", "start": 10**6, "stop": 10**6}),
    ("post_processor", {"type": "TemplateProcessing", "single": [], "pair": []}),
    ("truncation", {"max_length": 0, "stride": 5}),
    ("model", {"type": "Unigram", "unk_id": 5, "vocab": []}),
    ("added_tokens", [{"id": 10**9, "content": "x"}]),
]


@pytest.mark.parametrize(("part", "value"), PARTS)
def test_a_text_tokenizer_of_other_parts_than_known_ones_is_refused(tmp_path, part, value):
    made = text.TextTokenizer.train(["a dog"], vocab_size=40, num_sentinels=2, num_bins=2)
    content = json.loads(made.backend.to_str())
    (tmp_path / "t.json").write_text(json.dumps({**content, part: value}))
    with pytest.raises(ValueError, match=r"t\.json is no tokenizer of the HF JSON format: "):
        text.TextTokenizer.load(tmp_path / "t.json")


def test_own_text_tokenizers_pass_the_checks_in_any_script(tmp_path):
    made = text.TextTokenizer.train(
        ["ein Käse", "ไทย", "हिन्दी"], vocab_size=80, num_sentinels=2, num_bins=2
    )
    made.save(tmp_path)
    loaded = text.TextTokenizer.load(tmp_path)
    for written in ("käse", "ไทย หมา", "हिन्दी 狗"):
        assert loaded.encode(written).tolist() == made.encode(written).tolist()


def test_a_failure_inside_the_tokenizer_library_is_a_value_error():
    from fourm_jax.tokenizers import hf_file

    class PanicException(BaseException):
        """As the library's, which no module offers."""

    def panic():
        raise PanicException("index out of bounds")

    with pytest.raises(ValueError, match="the tokenizer library failed: index out of bounds"):
        hf_file.guarded(panic)


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\0\0"])
def test_pictures_of_formats_that_call_other_programs_are_not_opened(content):
    with pytest.raises(ValueError, match="unreadable picture: none of JPEG, PNG"):
        picture_files.decode_rgb(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../../etc/passwd"}, "file is '../../etc/passwd', allowed: the name of a file"),
        ({"num_records": -1}, "num_records is -1"),
        ({"bytes": "many"}, "bytes is 'many'"),
    ],
)
def test_a_manifest_names_files_of_its_own_folder_only(tmp_path, change, message):
    shard = {"file": "train-00000-of-00001.array_record", "num_records": 1, "bytes": 9}
    content = {"version": 1, "recipe": {}, "fields": {}, "shards": [{**shard, **change}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"train.json: not the manifest of a split: {message}"):
        shards.read_manifest(tmp_path, "train")


@pytest.mark.parametrize("line", ["3", "{}", '{"place": 1}', '{"place": "a", "color": 2}'])
def test_a_line_that_lists_no_left_out_record_is_named(tmp_path, line):
    good = '{"place": "a", "reason": "b", "message": "c"}\n'
    (tmp_path / "x.jsonl").write_text(good + line)
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2"):
        list(left_out.read_lines(tmp_path / "x.jsonl"))


def test_a_record_is_not_nested_without_end():
    name = "/".join(["a"] * 100)
    content = header({name: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
    with pytest.raises(ValueError, match="lies more than 32 dicts deep"):
        records.decode(content)
    with pytest.raises(ValueError, match="field 'a': nested deeper than 64"):
        records.encode({"a": json.loads("[" * 70 + "]" * 70), "b": np.zeros(1)})


def test_a_position_table_that_no_host_could_hold_is_refused():
    with pytest.raises(ValueError, match="position table of 1000000000000 x 64 numbers"):
        posemb.sincos_1d(10**12, 64)
    with pytest.raises(ValueError, match="position table of 100000000 x 64 numbers"):
        posemb.sincos_2d(10_000, 10_000, 64)


def test_rules_say_what_is_allowed():
    rules = {"a": plain_data.list_of(plain_data.optional(plain_data.integer(0, 3)), 2)}
    plain_data.check({"a": [None, 3], "b": object()}, rules, "x")
    with pytest.raises(
        ValueError, match=r"x: a is \[4\], allowed: a list of at most 2, each an in"
    ):
        plain_data.check({"a": [4]}, rules, "x")
    with pytest.raises(ValueError, match="x: found 3, expected names with values"):
        plain_data.check(3, rules, "x")
    with pytest.raises(ValueError, match="x: no 'a', 'c'"):
        plain_data.check({"b": 1}, rules, "x", required=("a", "b", "c"))
