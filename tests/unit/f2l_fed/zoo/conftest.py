from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from f2l_fed.zoo import Zoo
from tests.support.s3_server import BUCKET, s3_server
from tests.unit.f2l_fed.zoo.samples import new_zoo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zoo"


@pytest.fixture
def zoo(path: Path) -> Zoo:
    return new_zoo(path)


@pytest.fixture
def ram() -> Iterator[Path]:
    """A folder where waiting for the disk costs nothing, if the machine has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3_url(s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a zoo may be made in an object store."""
    for name, value in {**s3_environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}/{tmp_path.parent.name}"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> Path | str:
    """A place for a zoo, of each kind."""
    found: Path | str = request.getfixturevalue({"folder": "path", "s3": "s3_url"}[request.param])
    return found
