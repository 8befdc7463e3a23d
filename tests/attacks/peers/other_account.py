"""Another account of the same machine, without any right: `nobody`.

An attack is a piece of Python that prints what it could do; the test then asks for the output::

    done = as_nobody("import sys; print(open(sys.argv[1]).read())", str(secret))
    assert "PermissionError" in done.stderr

It runs in the same version of Python with the same packages, so it may import what is installed.
Only root can start it: mark the test with `needs_root`. pytest's ``tmp_path`` is closed to others
as a whole; what a file's own mode is worth shows in a `public_folder`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_S

_ROOT = str(Path(__file__).parents[3])

NOBODY = 65534
"""User and group id."""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="starts processes of another account")


def as_nobody(
    code: str, *args: str, timeout: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -c code args`` as an account that belongs to no other group.

    Args:
        code: The attack; finds ``args`` in ``sys.argv[1:]``.
        timeout: Seconds after which it is ended.
    """
    return _started(_interpreter(), code, args, timeout)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A new folder that every account may enter and read, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="f2l-public-") as name:
        (folder := Path(name)).chmod(0o755)
        yield folder


@cache
def _interpreter() -> str:
    """This one, or the system's of the same version: this one may lie where only root reads."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, shutil.which(version, path=os.defpath)):
        try:
            if path and _started(path, "import ssl", (), 60.0).returncode == 0:
                return path
        except PermissionError:
            continue
    pytest.skip(f"no {version} that another account may start")


def _started(
    python: str, code: str, args: tuple[str, ...], timeout: float
) -> subprocess.CompletedProcess[str]:
    packages = [path for path in sys.path if path.endswith("-packages")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": os.pathsep.join([_ROOT, *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [python, "-c", code, *args],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
