"""The commands without a process for each, since starting one takes longer than its work."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from clients.cli import site
from server.cli import admin, server

ENTRIES = {"f2l-admin": admin, "f2l-server": server, "f2l-site": site}


def in_process(*words: str) -> CompletedProcess[str]:
    """The output and exit code of a command that ends by itself."""
    said, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(said),
        redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", list(words))
        patch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as end:
            ENTRIES[words[0]]()
    code = end.value.code
    assert code is None or isinstance(code, int)
    return CompletedProcess(words, code or 0, said.getvalue(), errors.getvalue())
