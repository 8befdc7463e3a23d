"""Packages with lazy exports: one list of names, each imported at its first use."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import f2l_fed
from f2l_fed.core.lazy_exports import lazy_exports

ROOT = Path(f2l_fed.__file__).parent


def _lazy_packages():
    return [
        ".".join((ROOT.name, *path.parent.relative_to(ROOT).parts))
        for path in sorted(ROOT.rglob("__init__.py"))
        if "lazy_exports(" in path.read_text()
    ]


def _typed_imports(package):
    """The names that a type checker sees in the package, by the module that defines them."""
    tree = ast.parse(Path(importlib.import_module(package).__file__).read_text())
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        (node.module, alias.name)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("package", _lazy_packages())
def test_a_lazy_package_offers_what_a_type_checker_sees(package):
    module = importlib.import_module(package)
    typed = _typed_imports(package)
    assert sorted(module.__all__) == sorted(name for _, name in typed)
    for defined_in, name in typed:
        assert getattr(module, name) is getattr(importlib.import_module(defined_in), name)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="has no attribute 'Unknown'"):
        _ = module.Unknown


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ``lazy_sample`` whose module ``heavy`` defines ``Heavy`` and ``other``."""
    folder = tmp_path / "lazy_sample"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from f2l_fed.core.lazy_exports import lazy_exports\n"
        "__getattr__, __dir__ = lazy_exports(__name__, {'lazy_sample.heavy': ['Heavy']})\n"
    )
    (folder / "heavy.py").write_text("class Heavy: pass\n")
    (folder / "light.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_module_of_a_lazy_package_costs_its_own_imports_only(package):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, lazy_sample.light\n"
            "assert 'lazy_sample.heavy' not in sys.modules\n"
            "from lazy_sample import Heavy\n"
            "import lazy_sample.heavy\n"
            "assert Heavy is lazy_sample.heavy.Heavy is vars(lazy_sample)['Heavy']\n",
        ],
        env={"PYTHONPATH": f"{package}:{ROOT.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_export_with_the_name_of_a_module_is_refused():
    with pytest.raises(ValueError, match="both an export and a module"):
        lazy_exports("sample", {"sample.reflow": ["reflow"]})


def test_a_name_is_exported_once():
    with pytest.raises(ValueError, match="exported by"):
        lazy_exports("sample", {"sample.a": ["X"], "sample.b": ["X"]})
