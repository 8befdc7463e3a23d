"""Another account that looks into folders and writes there, and a walk for what it could use.

The attack is `LOOK`, for `as_nobody`: it prints for each folder whether listing it and writing into
it were refused. Add the next thing to try as one more ``refused`` in its line.
"""

from __future__ import annotations

from pathlib import Path

LOOK = """
import os, sys
def refused(call, *arguments):
    try:
        call(*arguments)
    except PermissionError:
        return True
    return False
for path in sys.argv[1:]:
    print(refused(os.listdir, path), refused(open, os.path.join(path, "probe"), "w"))
"""


def open_to_others(folder: Path) -> list[str]:
    """Everything in a folder, itself included, with a right for another account."""
    found = [folder, *folder.rglob("*")]
    return [
        f"{path} {path.lstat().st_mode & 0o777:o}"
        for path in found
        if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]
