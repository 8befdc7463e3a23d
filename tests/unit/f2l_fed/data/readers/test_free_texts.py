"""Tests of the column of a table whose texts are the inputs."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from f2l_fed.core.text_bytes import texts_of
from f2l_fed.data.own_data import read_pool, read_public, read_sites
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.inputs import read_inputs
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.errors import ConfigError, DataError

CONFIG = ReadingConfig(text="note", label="kind", text_bytes=16)
ROWS = (("Bäume", "a", "1"), ("007", "b", "2"), (" Ba\u0308ume ", "b", "3"), ("BÄUME", "a", "4"))


def table(path, rows=ROWS, separator=","):
    lines = [separator.join(row) for row in (("note", "kind", "size"), *rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def encoded(path, config=CONFIG):
    raw, findings = read_raw(path, config), Findings(str(path))
    encoding = fit_encoding(raw, np.arange(len(raw)), config, findings)
    return raw, encoding, encoding.encode(raw, findings)


def as_parquet(path):
    notes, kinds, _ = zip(*ROWS, strict=True)
    parquet.write_table(pa.table({"note": notes, "kind": kinds}), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_texts_become_bytes_each_as_it_is_written(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    _ = as_parquet(path) if suffix == "parquet" else table(path, separator=",\t"[suffix == "tsv"])
    raw, encoding, x = encoded(path)
    assert x.shape == (4, 16)
    assert texts_of(x) == ["Bäume", "007", "Bäume", "BÄUME"]
    # One text in two forms of Unicode is one; capitals are others.
    assert raw.inputs[0] == raw.inputs[2] != raw.inputs[3]
    assert FeatureEncoding.of_text(encoding.text, where="") == encoding
    assert encoding.text_bytes == 16
    assert not encoding.is_table


def test_longer_texts_are_cut_and_counted(tmp_path):
    rows = (("ääääääää and more", "a", ""), ("€€€€€€", "b", ""), ("ääääääää too", "a", ""))
    raw, _, x = encoded(table(tmp_path / "t.csv", rows))
    assert texts_of(x) == ["ä" * 8, "€" * 5, "ä" * 8]
    assert raw.inputs[0] == raw.inputs[2]
    assert any(
        remark.startswith("3 texts in column 'note' longer than 16 bytes") for remark in raw.remarks
    )


def test_rows_without_a_text_are_left_out_or_refused(tmp_path):
    path = table(tmp_path / "t.csv", (*ROWS, ("", "a", "5"), ("N/A", "b", "6")))
    raw, _, _ = encoded(path)
    assert len(raw) == 4
    assert "2 rows with missing values are left out." in raw.remarks
    strict = ReadingConfig(text="note", label="kind", gaps="refuse")
    with pytest.raises(DataError, match=r"rows have missing values \(2 in all\).*t.csv:6"):
        read_raw(path, strict)


def test_predictions_read_the_same_column(tmp_path):
    _, encoding, x = encoded(table(tmp_path / "t.csv"))
    (tmp_path / "new.csv").write_text("other,note\n1,Bäume\n2,\n3,new\n", "utf-8")
    findings = Findings("new")
    count, batches = read_inputs(tmp_path / "new.csv", CONFIG, encoding, (16,), findings)
    ((places, found),) = batches
    assert (count, places) == (2, ["new.csv:2", "new.csv:4"])
    assert texts_of(found) == ["Bäume", "new"]
    np.testing.assert_array_equal(found[0], x[0])
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 16)))
    with pytest.raises(DataError, match="the data are no table"):
        read_inputs(tmp_path / "x.npz", CONFIG, encoding, (16,), findings)


def test_what_is_no_table_or_has_no_such_column_is_told(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3)), y=np.array([0, 1]))
    with pytest.raises(DataError, match="a column of texts is named, and the data are no table"):
        read_raw(tmp_path / "x.npz", CONFIG)
    with pytest.raises(DataError, match=r"\[data\] text names does not exist.*Did you mean 'note'"):
        read_raw(table(tmp_path / "t.csv"), ReadingConfig(text="notes", label="kind"))
    with pytest.raises(DataError, match="the column of texts 'note' is empty"):
        read_raw(table(tmp_path / "e.csv", (("", "a", "1"), ("-", "b", "2"))), CONFIG)
    with pytest.raises(ConfigError, match="columns"):
        ReadingConfig(text="note", columns=("note",))
    with pytest.raises(ConfigError, match="text_bytes"):
        ReadingConfig(text="note", text_bytes=0)


def test_texts_of_several_sites_stay_apart_by_case(tmp_path):
    paths = [table(tmp_path / "a.csv"), table(tmp_path / "b.csv", (("bäume", "a", ""), ROWS[1]))]
    dataset, _ = read_sites(list(zip("ab", paths, strict=True)), CONFIG)
    assert dataset.columns[0].values == ("007", "BÄUME", "Bäume", "bäume")
    pool, remarks = read_pool(paths[0], CONFIG)
    assert pool.x.shape == (4, 1)
    assert "1 exact copy of another example is left out." in remarks


def test_public_texts_need_no_labels(tmp_path):
    (tmp_path / "p.csv").write_text("note\nzwei\neins\nzwei\n\n", "utf-8")
    x, _ = read_public(tmp_path / "p.csv", ReadingConfig(text="Note", text_bytes=8))
    assert texts_of(x) == ["eins", "zwei"]
