"""The house's own rules: which package may import which, and how large a file may grow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "f2l_fed": {"server", "clients", "ray", "grpc", "socket"},
    "clients": {"server", "ray"},
    "server": {"clients"},
}


def modules(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_its_room_may_not_know(package):
    assert modules(package)
    found = {
        str(path.relative_to(ROOT)): imported(path) & FORBIDDEN[package]
        for path in modules(package)
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_no_file_holds_more_than_400_lines():
    long = {
        str(path.relative_to(ROOT)): lines
        for package in (*FORBIDDEN, "tests")
        for path in modules(package)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert long == {}
