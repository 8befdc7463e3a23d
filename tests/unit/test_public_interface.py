"""The public interface: its names, what it costs to start, and the example in the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import f2l_fed

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "flwr", "grpc", "scipy", "pyarrow")
"""Packages that take a second or more to import."""


def test_every_public_name_is_there():
    assert all(getattr(f2l_fed, name) is not None for name in f2l_fed.__all__)
    assert set(f2l_fed.__all__) <= set(dir(f2l_fed))
    with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
        _ = f2l_fed.Unknown


@pytest.mark.parametrize(
    "start",
    [
        "import f2l_fed",
        "import sys; sys.argv = ['f2l-admin', '--help']; from server.cli import admin; admin()",
        "import sys; sys.argv = ['f2l-server', '--help']; from server.cli import server; server()",
        "import sys; sys.argv = ['f2l-site', '--help']; from clients.cli import site; site()",
    ],
)
def test_help_and_import_load_nothing_heavy(start):
    look = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', *({HEAVY} & sys.modules.keys())))\n"
    ).replace(str(HEAVY), f"set({HEAVY})")
    done = subprocess.run([sys.executable, "-c", look + start], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_the_example_in_the_readme_runs(tmp_path):
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+%", done.stdout)
