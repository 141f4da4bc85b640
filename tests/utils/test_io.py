"""Small files: whole or not there."""

import threading

from fourm_jax.utils import io


def test_writers_of_one_file_who_share_a_process_number_do_not_meet(tmp_path, monkeypatch):
    both_wrote = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(io, "sync", lambda path: both_wrote.wait())
    errors = []

    def write():
        try:
            io.write_json(tmp_path / "train.json", {"version": 1})
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not errors
    assert io.read_json(tmp_path / "train.json") == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
