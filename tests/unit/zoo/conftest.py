from __future__ import annotations

from pathlib import Path

import pytest

from f2l_fed.zoo import Zoo
from tests.unit.zoo.samples import new_zoo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zoo"


@pytest.fixture
def zoo(path: Path) -> Zoo:
    return new_zoo(path)
