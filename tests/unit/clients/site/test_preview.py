"""The preview of a site's data."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from clients.cli import site as entry_point
from clients.site.preview import picture_text, preview
from clients.site.site_folder import SiteFolder
from tests.support.checked_site import site_on, write_picture, write_rows


def shown(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["f2l-site", "data", "preview", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        entry_point()
    assert not ended.value.code
    return capsys.readouterr().out


def test_a_table_is_shown_by_its_features_with_places_balance_split_and_remarks(
    tmp_path, monkeypatch, capsys
):
    text = write_rows(tmp_path / "t.csv", rows=30).read_text().replace(",", ";")
    site = site_on(write_rows(tmp_path / "t.csv", text=text))
    found = preview(SiteFolder.read(site))
    assert found.parts == {"train": 24, "validation": 6}
    assert found.per_class["ok"] == {"train": 12, "validation": 3}
    assert [example.label for example in found.examples] == ["ok", "scratch"] * 5
    for example in found.examples:
        row = text.splitlines()[int(example.place.removeprefix("t.csv:")) - 1]
        assert row.split(";")[2] == example.label
        assert float(row.split(";")[1]) == example.x[1]
    printed = shown(monkeypatch, capsys, site)
    assert f"{found.examples[0].place}: 'ok'" in printed
    first = found.examples[0].x.tolist()
    assert f"a={first[0]:.4g}, b={first[1]:.4g}" in printed
    assert "remark: The columns are separated by semicolons." in printed
    assert "24 train, 6 validation" in printed
    values = json.loads(shown(monkeypatch, capsys, site, "--json"))
    assert values["features"] == ["a", "b"]
    assert len(values["examples"]) == 10


def test_images_are_shown_as_pictures_and_the_test_part_is_counted(tmp_path, monkeypatch, capsys):
    seed = 0
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        for label in ("ok", "scratch"):
            for n in range(count):
                seed += 1
                write_picture(tmp_path / "d" / part / label / f"{n}.png", seed=seed)
    printed = shown(monkeypatch, capsys, site_on(tmp_path / "d"))
    assert "12 train, 4 validation, 6 test" in printed
    assert "train/ok/0.png: 'ok'" in printed
    assert sum(set(line) <= set(" ░▒▓█ .:-=+*#%@") for line in printed.splitlines()) >= 30


def test_a_picture_keeps_light_and_dark():
    x = torch.zeros(3, 40, 60)
    x[:, :, 30:] = 1
    lines = picture_text(x, blocks=True).splitlines()
    assert len(lines) == 9
    assert all(line == " " * 14 + "█" * 14 for line in lines)


def test_output_numbers_are_labels_where_there_are_no_names(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((20, 3)), y=np.arange(20) % 2)
    assert set(preview(SiteFolder.read(site_on(tmp_path / "d.npz"))).per_class) == {"0", "1"}


def test_scaled_images_are_shown_as_the_pictures_that_they_are(tmp_path):
    for n in range(12):
        write_picture(tmp_path / "d" / "ab"[n % 2] / f"{n}.png", seed=n)
    plain = preview(SiteFolder.read(site_on(tmp_path / "d")))
    scaled = preview(SiteFolder.read(site_on(tmp_path / "d", 'image_scale = "standard"')))
    for one, other in zip(plain.examples, scaled.examples, strict=True):
        torch.testing.assert_close(one.x, other.x)
