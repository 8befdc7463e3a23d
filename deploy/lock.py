"""Writes the lock files: every package with its version and the SHA-256 of all its files.

`python deploy/lock.py` in an environment with the development tools. `requirements.lock` holds
what the demo and a service need, `requirements-dev.lock` what lint and tests need besides. Both
fit every Python from 3.11 on. The extra `text` stands in neither: its packages take about 90 MB,
and most federations have no texts. Nor does torch: which build of it is right depends on the
machine, so `constraints.txt` alone pins its version.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_DEPLOY = Path(__file__).resolve().parent
_BUILD = "hatchling>=1.25\neditables>=0.5\n"
"""Needed to install the project itself."""

_APART = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
"""torch, and what only some builds of it need."""

_HEADER = "# Made by deploy/lock.py; torch stands apart, in constraints.txt.\n"


def resolved(*extras: str, within: Path | None = None) -> list[str]:
    """The lock's entry of every package.

    Args:
        extras: Extras of the project.
        within: A lock that decides the versions.
    """
    command = ["uv", "pip", "compile", "pyproject.toml", "-", "--universal", "--quiet"]
    command += ["--python-version", "3.11", "--constraint", str(_DEPLOY / "constraints.txt")]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url"]
    command += [part for extra in extras for part in ("--extra", extra)]
    command += ["--constraint", str(within)] if within else []
    uv = [sys.executable, "-m", *command]
    text = subprocess.run(
        uv, cwd=_DEPLOY.parent, input=_BUILD, text=True, check=True, stdout=subprocess.PIPE
    ).stdout
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    return [entry for entry in entries if entry.strip() and not _APART.match(entry)]


def main() -> None:
    """Writes both files."""
    both = _DEPLOY / "requirements-dev.lock"
    everything = resolved("dev")
    both.write_text("".join(everything), encoding="utf-8")
    needed = resolved("demo", "s3", "jobs", within=both)
    tools = [entry for entry in everything if entry not in needed]
    for path, entries in ((_DEPLOY / "requirements.lock", needed), (both, tools)):
        path.write_text(_HEADER + "".join(entries), encoding="utf-8")


if __name__ == "__main__":
    main()
