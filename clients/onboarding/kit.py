"""The file of a site's kit (`f2l_fed.wire.kit`), and the backbone that may follow in it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from f2l_fed.core.durable_files import file_pieces, write_atomically
from f2l_fed.core.wording import file_fault
from f2l_fed.errors import ConfigError, DataError
from f2l_fed.wire.kit import KIT_END, LARGEST_KIT_BYTES, Kit

BACKBONE = "backbone.safetensors"
"""Name of the kit's backbone in the site's folder."""


def read_kit(path: Path, *, now: datetime) -> Kit:
    """Reads a kit; what follows it is left where it is.

    Args:
        path: The file.
        now: The time, with a time zone.

    Raises:
        ConfigError: If the file can't be read or is not a kit, or the kit was altered or has
            expired.
    """
    content = _beginning(path)
    end = _end(content)
    follows = bool(content[end:].strip())
    kit = Kit.parse(content[:end] if follows else content, where=str(path), now=now)
    if follows != bool(kit.backbone):
        raise ConfigError(
            "the kit is not whole",
            where=str(path),
            expected="the file of a backbone after it" if kit.backbone else "nothing after it",
            remedy="Ask the administrator for it again, as a file that nothing converts.",
        )
    return kit


def unpack_backbone(path: Path, kit: Kit, folder: Path) -> str:
    """Takes the backbone out of a kit, if there is one, and checks it; may be repeated.

    Args:
        path: The kit's file.
        kit: Its content, the fingerprint compared.
        folder: Folder of the site, which exists.

    Returns:
        The name of the backbone's file in the folder; "" where the kit has none.

    Raises:
        ConfigError: If it is not the backbone that the kit names.
        OSError: If it can't be written.
    """
    if not kit.backbone:
        return ""
    # Only kits with a backbone need PyTorch.
    from f2l_fed.targets.backbone_file import BackboneFile

    draft = folder / f".{BACKBONE}.unchecked"
    try:
        write_atomically(draft, file_pieces(path, _end(_beginning(path))), mode=0o600)
        try:
            got = BackboneFile.read(draft).part.digest
        except DataError:
            got = "no backbone"
        if got != kit.backbone:
            raise ConfigError(
                "the kit's backbone was altered on the way",
                where=str(path),
                expected=kit.backbone,
                got=got,
                remedy="Ask the administrator for the kit again, as a file that nothing converts.",
            )
        draft.replace(folder / BACKBONE)
    finally:
        draft.unlink(missing_ok=True)
    return BACKBONE


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_KIT_BYTES)
    except OSError as error:
        raise ConfigError(
            "the kit can't be read",
            where=str(path),
            got=file_fault(error),
            remedy="Ask the administrator for it again.",
        ) from error


def _end(content: bytes) -> int:
    """The length of the kit alone."""
    found = content.find(KIT_END)
    return len(content) if found < 0 else found + len(KIT_END)
