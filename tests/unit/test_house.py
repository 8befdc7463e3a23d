"""The house's own rules: who imports whom, one meaning for a name, one idea a file, plain prose."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "f2l_fed": {"server", "clients", "ray", "grpc", "socket"},
    "clients": {"server", "ray"},
    "server": {"clients"},
}
LAYERS = {
    "f2l_fed": (
        ("errors", "events", "flower"),
        ("core",),
        ("aggregate", "matrices", "zoo"),
        ("data", "targets"),
        ("local_training", "symmetry"),
        ("admission", "codec", "prior", "privacy", "wire"),
        ("explain", "flow", "quarantine"),
        ("generator",),
        ("evaluation",),
        ("audit",),
        ("config",),
    ),
    "server": (
        ("asgi", "federation", "pki", "processes"),
        ("gateway", "generator", "rounds", "superlink"),
        ("cluster", "membership", "reporting", "scheduling"),
        ("control", "dashboard", "erasure", "server_app"),
        ("simulation", "supervision"),
        ("commands",),
        ("cli",),
    ),
    "clients": (
        ("site",),
        ("onboarding", "training"),
        ("client_app",),
        ("daemon",),
        ("commands",),
        ("cli",),
    ),
}
"""The rooms of each package, from the ground up: every import between rooms goes down."""

LOOSE = {"f2l_fed": 3, "server": 5, "clients": 2}
"""How many files may lie beside the rooms."""

BY_NAME = {
    "f2l_fed/core/lazy_exports.py",
    "f2l_fed/core/lazy_registry.py",
    "f2l_fed/targets/imports.py",
    "server/cluster/fork_server_main.py",
    "server/simulation/runtime.py",
}
"""Files that import a module by its name: exports and registries that import at the first use, a
user's own network, what a fork server is told to import, and the sites' app that a simulation runs
although `server` never imports `clients`."""

FIRST_WORDS = re.compile(
    r"(What|Whatever|Who|Whoever|Whom|Whose|Where|Wherever|That of|Those|How|Why|As `|Between)\b"
)
"""What no docstring begins with: its first sentence names the thing."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every import, in functions too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_its_room_may_not_know(package):
    assert modules(package)
    found = {
        shown(path): {module.partition(".")[0] for module, _ in imports(path)} & FORBIDDEN[package]
        for path in modules(package)
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_every_import_between_rooms_points_down(package):
    level = {room: number for number, rooms in enumerate(LAYERS[package]) for room in rooms}
    rooms = {path.relative_to(ROOT / package).parts[0] for path in modules(package)}
    assert {room.removesuffix(".py") for room in rooms} - {"__init__"} == level.keys()
    known = {name_of(path) for path in modules(package)}
    upwards = []
    for path in modules(package):
        own = path.relative_to(ROOT / package).with_suffix("").parts[0]
        for module, name in imports(path):
            full = f"{module}.{name}" if f"{module}.{name}" in known else module
            package_of, _, rest = full.partition(".")
            room = rest.partition(".")[0]
            if package_of != package or not room or room == own or own == "__init__":
                continue
            if level[room] >= level[own]:
                upwards.append(f"{shown(path)} imports {full}")
    assert upwards == []


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_no_files_import_each_other_in_a_circle(package):
    known = {name_of(path): path for path in modules(package)}
    below = {
        name: {
            f"{module}.{what}" if f"{module}.{what}" in known else module
            for module, what in imports(path)
        }
        & known.keys() - {name}
        for name, path in known.items()
    }
    # A package's own page re-exports what lies in it.
    pages = {name for name, path in known.items() if path.name == "__init__.py"}
    left = {name: {one for one in of if one not in pages} for name, of in below.items()}
    while free := [name for name, of in left.items() if not of & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def test_a_class_name_has_one_meaning():
    homes = defaultdict(list)
    for package in LAYERS:
        for path in modules(package):
            for node in parsed(path).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].append(shown(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_what_is_private_to_a_module_stays_there():
    found = [
        f"{shown(path)} imports {module}.{name}"
        for package in LAYERS
        for path in modules(package)
        for module, name in imports(path)
        if module.partition(".")[0] in LAYERS and name.startswith("_") and name != "__version__"
    ]
    assert found == []


def test_modules_are_imported_by_name_only_where_it_is_stated():
    found = {
        shown(path)
        for package in LAYERS
        for path in modules(package)
        if re.search(r"\b(import_module|__import__)\(", path.read_text())
    }
    assert found == BY_NAME


def test_the_first_sentence_of_a_docstring_names_the_thing():
    found = []
    for package in LAYERS:
        for path in modules(package):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node)
                    name = getattr(node, "name", "module")
                    if text and (FIRST_WORDS.match(text) or text.startswith("TODO")):
                        found.append(f"{shown(path)} {name}: {text.splitlines()[0]}")
                    if not text and not name.startswith("_") and isinstance(node, ast.ClassDef):
                        found.append(f"{shown(path)} {name}: none")
    assert found == []


@pytest.mark.parametrize("package", sorted(LOOSE))
def test_few_files_lie_beside_the_rooms(package):
    loose = [path.name for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= LOOSE[package], loose


def test_no_file_holds_more_than_400_lines():
    long = {
        shown(path): lines
        for package in (*FORBIDDEN, "tests")
        for path in modules(package)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert long == {}
