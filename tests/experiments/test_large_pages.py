"""Commands start again with large pages; whatever only imports them does not."""

import os
import pathlib
import sys
import types

import pytest

from experiments import cli

ON_REQUEST = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture
def started(monkeypatch):
    """Arguments that a command would have been started with again, and a clean environment."""
    calls = []
    monkeypatch.setattr(os, "execv", lambda *arguments: calls.append(arguments))
    monkeypatch.setitem(os.environ, "GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")
    return calls


@pytest.mark.skipif(
    not ON_REQUEST.exists() or "[madvise]" not in ON_REQUEST.read_text(),
    reason="large pages are not given on request here",
)
def test_a_command_starts_again_once_with_the_same_arguments(monkeypatch, started):
    command = str(pathlib.Path(cli.__file__).with_name("train.py"))
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__file__=command))
    cli.set_environment()
    cli.set_environment()
    assert started == [(sys.executable, sys.orig_argv)]
    assert "hugetlb" in os.environ["GLIBC_TUNABLES"]


def test_an_import_starts_nothing(started):
    cli.set_environment()
    assert not started
