"""Federations that have conducted rounds already, for tests that begin after them.

The rounds of each kind are conducted once in a process; every test gets a copy of its own.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from server.federation.folder import Federation
from tests.support.inline import run_inline
from tests.support.small_federation import ANY_RELEASE, FEW, small_federation


def after_rounds(
    out: Path, count: int = 1, *, sites: int = 6, settings: tuple[str, ...] = ()
) -> Federation:
    """A `small_federation` in ``out`` with so many rounds done."""
    shutil.copytree(_conducted(count, sites, settings), out)
    return Federation.open(out)


def after_quick_round(out: Path, *more: str) -> tuple[Federation, list[Path]]:
    """As `prepared` with settings under which any release passes, after its first round."""
    federation = after_rounds(out, settings=(*FEW, *ANY_RELEASE, *more))
    return federation, sorted((out / "sites").glob("*/site.toml"))


@cache
def _conducted(count: int, sites: int, settings: tuple[str, ...]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="f2l-conducted-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    federation, _ = small_federation(folder / "out", sites=sites, settings=settings)
    states = run_inline(federation, count)
    assert [state.step for state in states] == ["done"] * count
    return federation.root
