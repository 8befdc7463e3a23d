"""The lock files: they fit the project and pin every package with hashes; the bill of materials."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
LOCKS = ("requirements.lock", "requirements-dev.lock")


def entries(name: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Requirements and their numbers of hashes, by package."""
    found: dict[str, list[tuple[Requirement, int]]] = {}
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        requirement, *rest = entry.replace("\\\n", "").split("--hash=")
        parsed = Requirement(requirement.strip())
        hashes = [h for h in rest if re.fullmatch(r"sha256:[0-9a-f]{64}", h.strip())]
        assert len(hashes) == len(rest)
        found.setdefault(canonicalize_name(parsed.name), []).append((parsed, len(hashes)))
    return found


def pinned() -> dict[str, str]:
    """The version of every package that the locks choose for this Python."""
    return {
        package: next(iter(requirement.specifier)).version
        for name in LOCKS
        for package, choices in entries(name).items()
        for requirement, _ in choices
        if requirement.marker is None or requirement.marker.evaluate()
    }


def test_every_package_is_pinned_to_one_version_with_hashes():
    for name in LOCKS:
        for choices in entries(name).values():
            for requirement, hashes in choices:
                (specifier,) = requirement.specifier
                assert specifier.operator == "=="
                assert hashes


def test_the_locks_fit_the_projects_bounds_and_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, versions = project["optional-dependencies"], pinned()
    # Transformers, which few federations need, are installed beside the lock.
    locked = [extra for name, extra in extras.items() if name != "text"]
    asked = [*project["dependencies"], *(text for extra in locked for text in extra)]
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if name not in ("f2l-fed", "torch"):
            assert requirement.specifier.contains(versions[name]), name


def test_the_locks_follow_the_constraints_but_for_torch_which_stands_apart():
    versions = pinned()
    lines = (DEPLOY / "constraints.txt").read_text().splitlines()
    for constraint in (Requirement(line) for line in lines if line and line[0] != "#"):
        name = canonicalize_name(constraint.name)
        if name == "torch":
            assert name not in versions
        else:
            assert constraint.specifier.contains(versions[name]), name


def test_no_tool_stands_in_the_lock_of_a_service():
    assert not {"pytest", "ruff", "mypy", "moto"} & entries(LOCKS[0]).keys()


def test_the_locks_name_no_place_to_install_from():
    for name in LOCKS:
        text = (DEPLOY / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "--index" not in text


def test_the_bill_of_materials_lists_what_is_installed(tmp_path):
    out = tmp_path / "sbom.json"
    tool = Path(sys.executable).with_name("cyclonedx-py")
    script = (DEPLOY / "sbom.sh").read_text()
    command = script[script.index(".venv/bin/cyclonedx-py") :].split("\necho")[0]
    command = command.replace(".venv/bin/cyclonedx-py", str(tool)).replace('"$out"', str(out))
    command = command.replace(".venv/bin/python", sys.executable).replace("\\\n", " ")
    subprocess.run(command.split(), cwd=ROOT, check=True, capture_output=True)
    bill = json.loads(out.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "f2l-fed"
    listed = {canonicalize_name(c["name"]): c["version"] for c in bill["components"]}
    assert listed["torch"].startswith("2.13.0")
    assert {name: listed.get(name) for name in pinned()} == pinned()
