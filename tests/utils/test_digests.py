import pytest

from fourm_jax.utils import digests


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    digests.write(tmp_path)
    return tmp_path


def test_what_was_written_is_sound_and_other_files_do_not_matter(folder):
    (folder / "later").write_bytes(b"x")
    assert digests.damaged(folder) == []


def test_one_flipped_bit_and_a_missing_file_are_found(folder):
    (folder / "deep" / "a").write_bytes(b"abb")  # c is 0b1100011, b is 0b1100010
    (folder / "b").unlink()
    assert digests.damaged(folder) == ["b", "deep/a"]


@pytest.mark.parametrize("content", ["{", "3"])
def test_damaged_digests_are_damage(folder, content):
    (folder / digests.FILE).write_text(content)
    assert digests.damaged(folder) == [digests.FILE]


def test_a_folder_of_an_older_version_has_no_digests(tmp_path):
    assert digests.damaged(tmp_path) is None
