"""Files and folders that are whole or not there, whatever happens while they are written."""

import pytest
from etils import epath

from fourm_jax.utils import folders, io


def test_a_folder_takes_the_place_of_the_one_before_only_when_it_is_complete(tmp_path):
    for content in ("old", "new"):
        with folders.complete_or_absent(tmp_path / "a", replace=True) as partial:
            (partial / "file").write_text(content)
    with (
        pytest.raises(OSError, match="disk full"),
        folders.complete_or_absent(tmp_path / "a", replace=True) as partial,
    ):
        (partial / "file").write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    def full(path):
        raise OSError("disk full")

    io.write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(io, "sync", full)
    with pytest.raises(OSError, match="disk full"):
        io.write_text(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert epath.Path(tmp_path / "a.json").read_text() == "old"
