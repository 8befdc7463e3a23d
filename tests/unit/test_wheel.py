"""The wheel has every file of the three packages and nothing else, and names its commands."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import f2l_fed

ROOT = Path(__file__).parents[2]
PACKAGES = ("f2l_fed", "server", "clients")
MOST_BYTES = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(path)


def listed(wheel: Path) -> set[str]:
    """Names as ``python -m zipfile -l`` lists them."""
    command = [sys.executable, "-m", "zipfile", "-l", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {re.split(r"\s+\d{4}-", line)[0] for line in done.stdout.splitlines()[1:]}


def test_it_holds_the_packages_with_their_data_and_nothing_else(wheel):
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = f"f2l_fed-{f2l_fed.__version__}.dist-info/"
    found = {name for name in listed(wheel) if not name.startswith(about)}
    assert found == there
    for needed in (
        "server/bundle/pyproject.toml",
        "server/reporting/templates/report.html.j2",
        "server/reporting/templates/style.css",
        "server/control/proto/control.proto",
    ):
        assert needed in found
    assert wheel.stat().st_size < MOST_BYTES


def test_it_names_commands_licence_and_requirements(wheel):
    about = f"f2l_fed-{f2l_fed.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        facts = message_from_bytes(archive.read(f"{about}/METADATA"))
        commands = configparser.ConfigParser()
        commands.read_string(archive.read(f"{about}/entry_points.txt").decode())
        assert archive.read(f"{about}/licenses/LICENSE")
    assert set(commands["console_scripts"]) == {"f2l-admin", "f2l-server", "f2l-site"}
    assert facts["Requires-Python"] == ">=3.11"
    assert facts["License-Expression"] == "Apache-2.0"
    required = {re.split("[<>=;]", text)[0] for text in facts.get_all("Requires-Dist", [])}
    assert {"torch", "flwr[simulation]", "pyarrow", "pillow"} <= required
    assert facts["Description-Content-Type"] == "text/markdown"
