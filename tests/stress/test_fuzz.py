"""A few seeds of the fuzz suite (`make test-fuzz`): enough to see that nothing new escapes."""

import importlib

import pytest

from tests.stress import fuzz


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["fuzz_data", "fuzz_pictures", "fuzz_models"])
def test_damaged_files_are_taken_or_refused(name, tmp_path):
    for target in importlib.import_module(f"tests.stress.{name}").targets(tmp_path):
        result = fuzz.run(target, seed=0, rounds=target.rounds)
        assert not result.failures, result.failures[0]
        assert result.counts["refused"], f"{target.name}: nothing was damaged"


def test_a_run_of_one_seed_is_repeatable():
    seen = {0: [], 1: []}
    for repeat in seen:
        target = fuzz.Target(name="any", seeds=(b"0123456789",), read=seen[repeat].append)
        fuzz.run(target, seed=3, rounds=20)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 10


def test_what_escapes_and_what_hangs_is_counted(monkeypatch):
    def read(data):
        if data == b"bad":
            raise TypeError("oops")
        while data == b"slow":
            pass

    monkeypatch.setattr(fuzz, "LIMIT", 0.05)
    answers = iter([b"bad", b"slow", b"fine"])
    target = fuzz.Target(name="any", seeds=(b"",), read=read, mutate=lambda *_: next(answers))
    result = fuzz.run(target, seed=0, rounds=3)
    assert result.counts == {"escaped": 1, "hung": 1, "accepted": 1}
    assert [data for _, data in result.failures] == [b"bad", b"slow"]
    assert "any, file 0: escaped TypeError: oops" in result.failures[0][0]
