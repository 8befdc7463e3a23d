"""Folders of images as cameras, tools and people leave them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.reading import read_raw
from tests.support.checked_site import (
    checked,
    one_problem,
    one_remark,
    opened,
    write_picture,
)


def folder(path: Path, *, count: int = 8, mode: str = "L", suffix: str = "png") -> Path:
    """Two classes of images."""
    for label in ("ok", "scratch"):
        for n in range(count):
            seed = n + 100 * (label == "ok")
            write_picture(path / label / f"{n}.{suffix}", mode=mode, seed=seed)
    return path


def pixels(path: Path, **config: object):
    return read_raw(path, ReadingConfig(**config)).inputs  # type: ignore[arg-type]


def test_class_folders_become_classes_in_sorted_order(tmp_path):
    for name, value in (("scratch/1.png", 255), ("ok/1.png", 0), ("ok/2.bmp", 51)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3), value).save(tmp_path / name)
    raw = read_raw(tmp_path, ReadingConfig())
    assert raw.inputs.shape == (3, 1, 3, 4)
    assert raw.labels is not None
    assert raw.labels.codes.tolist() == [0, 0, 1]
    assert raw.inputs[:, 0, 0, 0].tolist() == [0, 51, 255]
    assert [raw.places[row] for row in range(3)] == ["ok/1.png", "ok/2.bmp", "scratch/1.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_as_the_camera_noted(tmp_path, orientation):
    upright = Image.new("L", (6, 4))
    upright.putpixel((5, 0), 255)
    back = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in back.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for label in "ab":
        (tmp_path / label).mkdir()
        stored.save(tmp_path / label / "1.png", exif=exif)
    x = pixels(tmp_path)
    assert x.shape == (2, 1, 4, 6)
    assert np.argwhere(x[0, 0] == 255).tolist() == [[0, 5]]
    remarks = read_raw(tmp_path, ReadingConfig()).remarks
    assert any("2 images were turned upright" in text for text in remarks) == (orientation > 1)


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        ("1", "png", 1),
        ("L", "jpg", 1),
        ("LA", "png", 1),
        ("P", "png", 3),
        ("RGB", "jpg", 3),
        ("RGBA", "png", 3),
        ("CMYK", "jpg", 3),
        ("YCbCr", "tif", 3),
        ("I", "tif", 1),
        ("F", "tif", 1),
    ],
)
def test_every_mode_is_converted_with_a_remark(tmp_path, mode, suffix, channels):
    report = checked(folder(tmp_path, mode=mode, suffix=suffix))
    assert report.problems == ()
    assert report.input_shape == (channels, 6, 8)
    if mode not in ("L", "RGB", "YCbCr"):
        one_remark(report, "converted to", f"16 of mode {mode}")


def test_deep_images_keep_their_brightness(tmp_path):
    for label, value in (("a", 0), ("b", 65535)):
        (tmp_path / label).mkdir()
        grey = np.full((3, 4), value, np.uint16)
        grey[0, 0] = 257 * 100
        Image.fromarray(grey).save(tmp_path / label / "1.png")
    x = pixels(tmp_path)
    assert x[:, 0, 0, 0].tolist() == [100, 100]
    assert x[:, 0, 1, 1].tolist() == [0, 255]


def test_floats_out_of_range_are_told(tmp_path):
    folder(tmp_path)
    odd = Image.fromarray(np.full((6, 8), -3, np.float32))
    odd.save(tmp_path / "ok/odd.tif")
    problem = one_problem(checked(tmp_path), "values out of range", "ok/odd.tif (-3 to -3)")
    assert "8 or 16 bits" in problem


def test_images_of_floats_have_one_range(tmp_path):
    for label, value in (("a", 0.5), ("b", 0.0), ("c", 1.0)):
        (tmp_path / label).mkdir()
        Image.fromarray(np.full((3, 4), value, np.float32)).save(tmp_path / label / "1.tif")
    assert pixels(tmp_path)[:, 0, 0, 0].tolist() == [128, 0, 255]
    Image.fromarray(np.full((3, 4), 200, np.float32)).save(tmp_path / "b/2.tif")
    problem = one_problem(checked(tmp_path), "different ranges")
    assert "0 to 1 (2), 0 to 255 (1)" in problem


def test_transparent_parts_are_laid_on_white(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.new("RGBA", (4, 3), (9, 9, 9, 0)).save(tmp_path / label / "1.png")
    assert pixels(tmp_path).min() == 255


def test_mixed_modes_become_the_richer_one_and_can_be_set(tmp_path):
    write_picture(folder(tmp_path) / "ok/colour.png", mode="RGB")
    report = checked(tmp_path)
    assert report.input_shape == (3, 6, 8)
    one_remark(report, "converted to RGB: 16 of mode L")
    assert checked(tmp_path, 'mode = "grey"').input_shape == (1, 6, 8)


def test_mixed_sizes_need_resize_and_all_sizes_are_told(tmp_path):
    write_picture(folder(tmp_path) / "ok/large.png", size=(30, 20))
    write_picture(tmp_path / "ok/tall.png", size=(6, 8))
    problem = one_problem(checked(tmp_path), "different sizes", "3 in all")
    assert "8x6 (16), 30x20 (1), 6x8 (1)" in problem
    assert "resize = [width, height]" in problem
    report = checked(tmp_path, "resize = [5, 4]")
    assert (report.problems, report.input_shape) == ((), (1, 4, 5))
    one_remark(report, "18 images were brought to 5x4 pixels")
    assert checked(tmp_path, "resize = [4]").input_shape == (1, 4, 4)


def test_what_file_managers_leave_behind_does_not_matter(tmp_path):
    folder(tmp_path)
    for name in ("ok/Thumbs.db", "ok/.DS_Store", "ok/desktop.ini", "__MACOSX/ok/._1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("x")
    report = checked(tmp_path)
    assert (report.problems, report.train + report.validation) == ((), 16)
    write_picture(tmp_path / "beside.png")
    one_remark(checked(tmp_path), "1 image beside the class folders", "beside.png")
    (tmp_path / "ok/manual.pdf").write_bytes(b"%PDF-1.4")
    one_remark(checked(tmp_path), "1 file is no image", "ok/manual.pdf")
    (tmp_path / "ok/manual.pdf").unlink()
    (tmp_path / "ok/notes.txt").write_text("x")
    one_remark(checked(tmp_path), "1 file is no image", "ok/notes.txt")


def test_all_bad_images_are_counted_and_the_first_are_named(tmp_path):
    folder(tmp_path)
    whole = (tmp_path / "ok/0.png").read_bytes()
    for n in range(7):
        (tmp_path / f"ok/bad{n}.png").write_bytes(whole[: 40 + n])
    (tmp_path / "scratch/phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "scratch/none.jpg").write_bytes(b"")
    frames = [Image.new("L", (8, 6), n) for n in range(3)]
    frames[0].save(tmp_path / "ok/pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "ok/film.gif", save_all=True, append_images=frames[1:])
    report = checked(tmp_path)
    bad = one_problem(report, "images can't be read", "8 in all")
    assert "ok/bad0.png" in bad
    assert "and 3 more" in bad
    one_problem(report, "several frames or pages", "ok/film.gif (3), ok/pages.tif (3)")
    one_problem(report, "format that can't be read", "scratch/phone.HEIC")
    assert len(report.problems) == 3


def test_a_truncated_image_with_a_sound_head_is_told(tmp_path):
    folder(tmp_path)
    write_picture(tmp_path / "ok/large.png", size=(8, 6))
    large = (tmp_path / "ok/large.png").read_bytes()
    (tmp_path / "ok/large.png").write_bytes(large[: len(large) - 60])
    one_problem(checked(tmp_path), "images can't be read", "ok/large.png (cut off)")
    # Together with what else is wrong.
    write_picture(tmp_path / "ok/tall.png", size=(6, 8))
    (tmp_path / "ok/empty.png").write_bytes(b"")
    report = checked(tmp_path)
    one_problem(report, "different sizes", "2 in all")
    bad = one_problem(report, "images can't be read", "2 in all")
    assert "ok/large.png (cut off)" in bad
    assert "ok/empty.png (not an image inside)" in bad
    assert len(report.problems) == 2


def test_photos_with_a_preview_inside_are_single_images(tmp_path):
    folder(tmp_path, mode="RGB", suffix="jpg")
    photo = Image.open(tmp_path / "ok/0.jpg")
    small = Image.open(tmp_path / "ok/1.jpg")
    photo.save(tmp_path / "ok/phone.jpg", format="MPO", save_all=True, append_images=[small])
    report = checked(tmp_path)
    assert (report.problems, report.train + report.validation) == ((), 17)


def test_nested_folders_belong_to_their_class_and_can_be_groups(tmp_path):
    for label in ("ok", "scratch"):
        for part in range(5):
            for n in range(3):
                seed = part * 10 + n + 100 * (label == "ok")
                write_picture(tmp_path / label / f"part{part}" / f"{n}.png", seed=seed)
    report = checked(tmp_path)
    assert (report.problems, report.train) == ((), 24)
    report = checked(tmp_path, 'group = "folder"')
    one_remark(report, "10 groups")
    assert report.validation == 6
    held_out = opened(tmp_path, 'group = "folder"').validation.x
    rows = {tuple(row.flatten().tolist()) for row in held_out}
    raw = read_raw(tmp_path, ReadingConfig(group="folder"))
    found = {
        raw.groups[row]
        for row in range(len(raw))
        if tuple((raw.inputs[row].flatten() / np.float32(255)).tolist()) in rows
    }
    assert len(found) == 2


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Valid"), ("train",)])
def test_folders_above_the_classes_name_parts_of_the_data(tmp_path, names):
    for place, name in enumerate(names):
        for label in ("ok", "scratch"):
            for n in range(8 if place == 0 else 3):
                seed = n + 100 * (label == "ok") + 1000 * place
                write_picture(tmp_path / name / label / f"{n}.png", seed=seed)
    report = checked(tmp_path)
    assert report.problems == ()
    assert set(report.per_class) == {"ok", "scratch"}
    assert (report.train, report.validation) == ((16, 6) if len(names) > 1 else (12, 4))
    one_remark(report, "parts of the data")


def test_a_folder_around_the_class_folders_is_seen_through(tmp_path):
    folder(tmp_path / "data/dataset/images")
    report = checked(tmp_path / "data")
    assert (report.problems, set(report.per_class)) == ((), {"ok", "scratch"})


def test_folders_without_images_are_told(tmp_path):
    (tmp_path / "none").mkdir()
    one_problem(checked(tmp_path / "none"), "no class folders")
    write_picture(tmp_path / "flat/1.png")
    one_problem(checked(tmp_path / "flat"), "no class folders")
    folder(tmp_path / "two")
    (tmp_path / "two/empty").mkdir()
    one_problem(checked(tmp_path / "two"), "class folders have no images", "empty")


def test_images_beyond_the_limit_are_refused_before_they_are_read(tmp_path, monkeypatch):
    folder(tmp_path)
    monkeypatch.setattr("f2l_fed.data.readers.image_folder.MOST_VALUES", 700)
    problem = one_problem(checked(tmp_path), "too large together")
    assert "at most 700, got 768 values" in problem
    assert "resize" in problem


def test_a_link_back_to_a_folder_above_ends_there(tmp_path):
    folder(tmp_path)
    (tmp_path / "ok/loop").symlink_to(tmp_path)
    (tmp_path / "ok/self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "ok/pipe.png")
    problem = one_problem(checked(tmp_path), "files can't be read")
    assert "ok/pipe.png: a pipe" in problem
    assert "ok/self.png" in problem
