"""The form of a text table, found from the file: encoding, separator, header."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from f2l_fed.data.readers.config import SEPARATORS, ReadingConfig
from f2l_fed.data.readers.files import MOST_BYTES, compression_of
from f2l_fed.data.readers.findings import Findings
from f2l_fed.errors import DataError

_SAMPLE = 2**18
_CHUNK = 2**20
_RECORDS = 200
_CANDIDATES = (",", ";", "\t", "|", " ")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"%PDF", "a PDF file"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip file without the suffix .gz"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """The form of a text table.

    Args:
        encoding: Python's name of the encoding.
        separator: The character between columns.
        header: Names of the columns, as they are written.
        skipped: Lines before the header.
    """

    encoding: str
    separator: str
    header: tuple[str, ...]
    skipped: int = 0


def text_format(path: Path, config: ReadingConfig, findings: Findings) -> TextFormat:
    """Finds the form of a text table; what the settings say goes first.

    Reads the file once, a piece at a time.

    Raises:
        DataError: If it is no text, too large, or of another encoding than the settings say.
    """
    encoding, sample = _decoded(path, config, findings)
    text = sample.removeprefix("\ufeff")
    separator, skipped = SEPARATORS.get(config.separator, config.separator), 0
    if stated := re.match(r"sep=(.)\r?\n", text):
        text, skipped = text[stated.end() :], 1
        separator = separator or stated[1]
    preamble = re.match(r"(#.*\n|\s*\n)+", text)
    below = text[preamble.end() :] if preamble else text
    if not separator:
        separator = max(_CANDIDATES, key=lambda candidate: _fit(below, candidate))
    if preamble and len(_records(below, separator)) > 0:
        first = len(_records(preamble[0].strip().splitlines()[-1], separator)[0])
        # A header may begin with this character, too.
        if first != len(_records(below, separator)[0]):
            text, skipped = below, skipped + preamble[0].count("\n")
    records = _records(text, separator)
    if not records:
        raise DataError(
            "the table is empty", where=str(path), expected="a first line with names of columns"
        )
    if not config.separator and separator != ",":
        findings.remark(f"The columns are separated by {_word(separator)}.")
    return TextFormat(
        encoding=encoding,
        separator=separator,
        header=tuple(records[0]),
        skipped=skipped,
    )


def _decoded(path: Path, config: ReadingConfig, findings: Findings) -> tuple[str, str]:
    """The encoding of a file, all of which is tried, and the file's first part as text."""
    first = b"".join(_pieces(path, _SAMPLE))
    for start, kind in _OTHER:
        if first.startswith(start):
            raise DataError(
                "the file is no text",
                where=str(path),
                got=kind,
                remedy="Save the table as CSV (UTF-8).",
            )
    marked = next((name for mark, name in _MARKS if first.startswith(mark)), "")
    stated = config.encoding
    if not (stated or marked) and b"\0" in first:
        raise DataError(
            "the file is no text",
            where=str(path),
            got="zero bytes",
            remedy="Save the table as CSV (UTF-8), or name its encoding under [data].",
        )
    tried = [stated] if stated else [marked] if marked else ["utf-8", "cp1252"]
    for encoding in tried:
        if _decodes(path, encoding):
            break
    else:
        raise DataError(
            f"the file is not written in {' or '.join(tried)}",
            where=str(path),
            remedy='Name its encoding under [data], such as encoding = "iso-8859-2".',
        )
    if not stated and encoding == "cp1252":
        _require_no_damage(path, first)
        findings.remark("The text is no UTF-8 and was read as Windows-1252 (like Latin-1).")
    elif not stated and encoding.startswith(("utf-16", "utf-32")):
        findings.remark(f"The text is {encoding.upper()}.")
    text = codecs.getincrementaldecoder(encoding)("ignore").decode(first)
    return encoding, text if len(first) < _SAMPLE else text[: text.rfind("\n") + 1] or text


def _require_no_damage(path: Path, first: bytes) -> None:
    """Raises DataError if a text that is no UTF-8 is so in most places."""
    text = first.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    if sum(ord(letter) > 127 for letter in text) > 2 * bad:
        raise DataError(
            "the text is UTF-8 in most places, but not in all",
            where=str(path),
            remedy="Save it again as UTF-8, or name its encoding under [data].",
        )


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        for piece in _pieces(path):
            decoder.decode(piece)
        decoder.decode(b"", True)
    except UnicodeError:
        return False
    return True


def _pieces(path: Path, most: int = 0) -> Iterator[bytes]:
    """The content of a file without its compression, a piece at a time; at most so many bytes."""
    total = 0
    try:
        with pa.input_stream(str(path), compression=compression_of(path)) as stream:
            while piece := stream.read(min(_CHUNK, most - total) if most else _CHUNK):
                total += len(piece)
                if total > MOST_BYTES:
                    break
                yield piece
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            "the file can't be read",
            where=str(path),
            got=(str(error).splitlines() or [""])[0],
            remedy="Save or copy it again.",
        ) from error
    if total > MOST_BYTES:
        raise DataError(
            "the table is too large",
            where=str(path),
            expected=f"at most {MOST_BYTES / 1e9:.1f} GB of text",
            remedy="Save it as Parquet, or use fewer rows.",
        )


def _records(text: str, separator: str) -> list[list[str]]:
    """The first records of a text, without empty ones."""
    found: list[list[str]] = []
    try:
        for record in csv.reader(text.splitlines(keepends=True), delimiter=separator):
            if record:
                found.append(record)
            if len(found) > _RECORDS:
                break
    except csv.Error:
        return found
    return found


def _fit(text: str, separator: str) -> tuple[float, float, int]:
    """The fitness of a separator for a text: records of one length, then numbers, then columns."""
    records = _records(text, separator)
    columns = len(records[0]) if records else 0
    if columns < 2:
        return 0.0, 0.0, 0
    rows = records[1:] or records
    same = sum(len(row) == columns for row in rows) / len(rows)
    cells = [cell for row in rows[:20] for cell in row]
    numerals = sum(is_numeral(cell, ".") or is_numeral(cell, ",") for cell in cells)
    return same, numerals / max(len(cells), 1), columns


def is_numeral(text: str, decimal: str) -> bool:
    """Whether a text is a number with this decimal mark, and without thousands separators."""
    mark = re.escape(decimal)
    return bool(re.fullmatch(rf"\s*[+-]?(\d+{mark}?\d*|{mark}\d+)([eE][+-]?\d+)?\s*", text))


def _word(separator: str) -> str:
    return {"\t": "tabs", ";": "semicolons", ",": "commas"}.get(separator, repr(separator))
