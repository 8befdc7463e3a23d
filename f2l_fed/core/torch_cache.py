"""The folder for torch's compiled code, where no other account can be first.

torch makes it as soon as an optimiser or a gradient by function is used, although nothing is
compiled here, and by default under a known name in the folder that all accounts share:
``/tmp/torchinductor_USER``. Whoever has put a file there before stops every training of that user.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable of torch; a value of the user's own stays."""


def choose_torch_cache(environment: MutableMapping[str, str] = os.environ) -> None:
    """Names a folder of this account, for this process and all that it starts; makes none.

    It is the one of Flower's files, which f2l-server and f2l-site have closed to others, else the
    user's cache. Where neither can be written, torch's choice stays: such accounts belong to
    services, which have a ``/tmp`` of their own.
    """
    home = environment.get("HOME", "")
    caches = (environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else ""),)
    places = [Path(cache, "f2l-fed") for cache in caches if cache]
    if flower := environment.get("FLWR_HOME"):
        places.insert(0, Path(flower))
    for place in places:
        if _VARIABLE not in environment and place.is_absolute() and _is_ours(place):
            environment[_VARIABLE] = str(place / "torch")


def _is_ours(place: Path) -> bool:
    """Whether a folder can be written, or made."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
