"""Labels of every kind: ids, numbers from 1, other spellings, none at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.site.site import open_site
from f2l_fed.errors import ConfigError
from tests.support.checked_site import (
    checked,
    one_problem,
    one_remark,
    opened,
    site_on,
    write_picture,
    write_rows,
)

SHARED = "shared_labels = true"


def arrays(path: Path, *labels: object, times: int = 10) -> Path:
    y = np.array([label for label in labels for _ in range(times)])
    np.savez(path, x=np.random.default_rng(0).random((len(y), 3)), y=y)
    return path


@pytest.mark.parametrize(
    "labels",
    [
        (10**12, 10**12 + 5, 10**12 + 1),
        (0, 2 * 10**9, 10**9),
        (0, 500, 1000),
        (1, 2, 3),
        (-1, 0, 1),
        (np.uint64(2**64 - 1), np.uint64(2**63), np.uint64(0)),
        (1e20, 0.0, 3.0),
        (-(2**63), 0, 2**63 - 1),
    ],
)
def test_ids_become_as_many_classes_as_there_are_with_a_remark(tmp_path, labels):
    path = arrays(tmp_path / "d.npz", *labels)
    report = checked(path)
    assert report.problems == ()
    assert sorted(map(int, report.per_class)) == sorted(map(int, labels))
    one_remark(report, "taken for names of 3 classes")
    assert opened(path).train.y.unique().tolist() == [0, 1, 2]
    assert any("-1 is taken for a class" in text for text in report.remarks) == (-1 in labels)


def test_output_numbers_are_kept_without_a_word(tmp_path):
    report = checked(arrays(tmp_path / "d.npz", 2, 0, 1))
    assert len(report.remarks) == 1
    assert opened(tmp_path / "d.npz").labels == ()


def test_shared_numbers_keep_their_meaning_where_a_class_is_missing(tmp_path):
    path = arrays(tmp_path / "d.npz", 1, 4)
    one_remark(checked(path, policy=SHARED), "of 0 to 4, 3 do not occur")
    assert opened(path, policy=SHARED).train.y.unique().tolist() == [1, 4]


@pytest.mark.parametrize("labels", [(0, 500, 1000), (-1, 0, 1), ("ok", "scratch"), (0, 10**12)])
def test_shared_labels_that_depend_on_what_occurs_have_to_be_named(tmp_path, labels):
    path = arrays(tmp_path / "d.npz", *labels)
    problem = one_problem(checked(path, policy=SHARED), "mean the same at all sites")
    assert "labels = [...]" in problem
    named = f"labels = {[str(label) for label in labels]}"
    assert checked(path, policy=SHARED, top=named).problems == ()


def test_unlabelled_rows_are_left_out_on_request_and_counted(tmp_path):
    path = arrays(tmp_path / "d.npz", -1, 0, 1)
    report = checked(path, 'unlabelled = ["-1"]')
    assert (report.problems, report.train + report.validation) == ((), 20)
    one_remark(report, "10 examples without a label are left out", "d.npz:0")
    one_problem(checked(path, 'unlabelled = ["-1", "0", "1"]'), "no example has a label")


def test_empty_cells_and_nan_are_no_labels(tmp_path):
    text = "a,label\n" + "".join(f"{n},{['x', 'y', '', 'n/a'][n % 4]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text(text)
    report = checked(tmp_path / "t.csv")
    assert set(report.per_class) == {"x", "y"}
    one_remark(report, "20 examples without a label", "t.csv:4")
    report = checked(arrays(tmp_path / "d.npz", 0.0, 1.0, float("nan")))
    assert set(report.per_class) == {"0", "1"}
    one_remark(report, "10 examples without a label", "d.npz:20")


def test_none_may_be_the_name_of_a_class(tmp_path):
    text = "a,label\n" + "".join(f"{n},{['none', 'scratch', '-'][n % 3]}\n" for n in range(30))
    (tmp_path / "t.csv").write_text(text)
    assert set(checked(tmp_path / "t.csv").per_class) == {"none", "scratch", "-"}


def test_quantities_are_no_classes(tmp_path):
    text = "a,label\n" + "".join(f"{n},{n / 4}\n" for n in range(20))
    (tmp_path / "t.csv").write_text(text)
    assert "a quantity to predict is no class" in one_problem(
        checked(tmp_path / "t.csv"), "not whole", "15 in all"
    )
    one_problem(checked(arrays(tmp_path / "d.npz", 0.5, 1.0, np.inf)), "y is not whole", "20 in")


def test_numbers_in_folder_names_and_in_arrays_are_numbered_alike(tmp_path):
    for label in ("1", "2", "10"):
        for n in range(6):
            write_picture(tmp_path / "pictures" / label / f"{n}.png", seed=int(label) * 10 + n)
    by_folder = opened(tmp_path / "pictures")
    assert by_folder.labels == opened(arrays(tmp_path / "d.npz", 1, 2, 10)).labels
    assert by_folder.labels == ("1", "2", "10")


def test_names_that_differ_in_case_blanks_or_unicode_form_are_one_label(tmp_path):
    names = ["Kratzer ä", "kratzer ä", " Kratzer a\u0308", "Kratzer\u200b  ä ", "ok", "OK"]
    report = checked(arrays(tmp_path / "d.npz", *names))
    assert len(report.per_class) == 2
    one_remark(report, "Labels that differ in case, blanks or Unicode form", "'Kratzer ä'")
    configured = 'labels = ["OK", "KRATZER Ä"]'
    site = opened(tmp_path / "d.npz", top=configured)
    assert site.labels == ("OK", "KRATZER Ä")
    assert site.train.y.bincount().tolist() == [16, 32]


def test_a_name_with_a_comma_is_named_in_a_list(tmp_path):
    path = arrays(tmp_path / "d.npz", "Kratzer, tief", "ok")
    assert opened(path, top='labels = ["ok", "Kratzer, tief"]').labels == ("ok", "Kratzer, tief")
    problem = one_problem(
        checked(path, top='labels = "ok, Kratzer"'), "not among those of the site"
    )
    assert "10 in all" in problem
    assert "'Kratzer, tief' (d.npz:0)" in problem
    one_problem(checked(path, top="labels = [1, 2]"), "labels has the wrong type", "list of texts")


def test_labels_that_are_configured_twice_are_refused(tmp_path):
    path = site_on(arrays(tmp_path / "d.npz", "a", "b"), top='labels = ["a", " A"]')
    with pytest.raises(ConfigError, match="expected different names"):
        open_site(path)


def test_too_many_classes_are_refused_before_anything_is_made(tmp_path):
    path = arrays(tmp_path / "d.npz", *range(0, 4000, 2), times=2)
    assert "at most 1000, got 2000" in one_problem(checked(path), "too many different labels")


def test_one_label_alone_is_refused(tmp_path):
    one_problem(checked(arrays(tmp_path / "d.npz", "a")), "all examples have the same label")


def test_the_old_form_of_the_data_key_is_read(tmp_path):
    arrays(tmp_path / "d.npz", "b", "a")
    (tmp_path / "site.toml").write_text('name = "a"\ndata = "d.npz"\nlabels = "b, a"\n')
    assert open_site(tmp_path / "site.toml").labels == ("b", "a")


def test_sodium_is_a_label_and_a_gap_is_none(tmp_path):
    rows = "1,Na\n2,K\n3,NA\n4,n/a\n" * 10
    path = write_rows(tmp_path / "t.csv", text=f"a,label\n{rows}")
    assert opened(path).labels == ("K", "Na")
    one_remark(checked(path), "20 examples without a label")
