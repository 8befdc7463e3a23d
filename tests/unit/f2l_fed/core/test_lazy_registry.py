"""Registries whose entries are imported at their first use."""

import subprocess
import sys

import pytest

from f2l_fed.aggregate.registry import AGGREGATORS
from f2l_fed.codec.registry import CODECS
from f2l_fed.core.lazy_registry import LazyRegistry
from f2l_fed.data.named_datasets.registry import DATASETS
from f2l_fed.data.scenarios.registry import SCENARIOS
from f2l_fed.flow.couplings.registry import COUPLINGS
from f2l_fed.flow.solvers.registry import SOLVERS
from f2l_fed.flow.sources.registry import SOURCES
from f2l_fed.targets.registry import TARGETS

REGISTRIES = {
    "aggregators": AGGREGATORS,
    "codecs": CODECS,
    "couplings": COUPLINGS,
    "datasets": DATASETS,
    "scenarios": SCENARIOS,
    "solvers": SOLVERS,
    "sources": SOURCES,
    "targets": TARGETS,
}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_entry_of_a_registry_can_be_imported(registry):
    entries = dict(REGISTRIES[registry])
    assert entries
    assert all(entry is REGISTRIES[registry][name] for name, entry in entries.items())


def test_a_name_is_known_before_its_entry_is_imported():
    registry = LazyRegistry({"absent": "f2l_fed.no_such_module:nothing"})
    assert "absent" in registry
    assert "other" not in registry
    assert list(registry) == ["absent"]
    assert len(registry) == 1
    assert "no_such_module" in repr(registry)
    with pytest.raises(ModuleNotFoundError):
        _ = registry["absent"]
    with pytest.raises(KeyError):
        _ = registry["other"]


def test_settings_of_the_rooms_are_imported_without_torch():
    modules = [
        "f2l_fed.audit.release_limits",
        "f2l_fed.codec.config",
        "f2l_fed.data.scenarios.config",
        "f2l_fed.flow.config",
        "f2l_fed.local_training.config",
        "f2l_fed.prior.config",
        "f2l_fed.targets.config",
    ]
    code = f"import sys, {', '.join(modules)}\nassert not {{'torch', 'scipy'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
