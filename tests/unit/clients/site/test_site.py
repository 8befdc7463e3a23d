from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.site.config import ServerConfig, read_config
from clients.site.site import open_site
from f2l_fed.errors import ConfigError, DataError
from tests.support.sites import digits_site


def test_the_split_is_fixed_and_takes_a_share_of_every_class(tmp_path):
    path = digits_site(tmp_path, per_class=10, more="validation_fraction = 0.3")
    site, again = open_site(path), open_site(path)
    assert site.train.y.bincount().tolist() == [7, 7, 7]
    assert site.validation.y.bincount().tolist() == [3, 3, 3]
    assert torch.equal(site.train.x, again.train.x)
    both = torch.cat([site.train.x, site.validation.x])
    assert len(both.flatten(1).unique(dim=0)) == 30


def test_another_name_draws_another_split(tmp_path):
    path = digits_site(tmp_path)
    first = open_site(path).validation.x
    path.write_text(path.read_text().replace("north", "south"))
    assert not torch.equal(first, open_site(path).validation.x)


def test_a_class_never_loses_its_last_example_to_validation(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.eye(5), y=[0, 0, 1, 1, 2])
    path = tmp_path / "site.toml"
    path.write_text('name = "a"\ndata = "train.npz"\nvalidation_fraction = 0.99')
    site = open_site(path)
    assert site.train.y.bincount().tolist() == [1, 1, 1]
    assert site.validation.y.bincount().tolist() == [1, 1]


def test_validation_labels_mean_what_they_mean_in_training(tmp_path):
    names = np.array(["a", "b", "c"])
    np.savez(tmp_path / "train.npz", x=np.eye(3), y=names)
    np.savez(tmp_path / "more.npz", x=np.eye(3)[1:], y=names[1:])
    path = tmp_path / "site.toml"
    path.write_text('name = "a"\ndata = "train.npz"\nvalidation = "more.npz"')
    site = open_site(path)
    assert site.validation.y.tolist() == [1, 2]
    assert site.labels == ("a", "b", "c")
    path.write_text(path.read_text() + '\nlabels = "c, a, b"')
    assert open_site(path).validation.y.tolist() == [2, 0]


def test_validation_of_another_shape_is_refused(tmp_path):
    path = digits_site(tmp_path, more='validation = "more.npz"')
    np.savez(tmp_path / "more.npz", x=np.eye(3), y=[0, 1, 2])
    with pytest.raises(DataError, match="validation examples have another shape"):
        open_site(path)


def test_the_state_folder_is_for_its_owner_alone(tmp_path):
    assert open_site(digits_site(tmp_path)).state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("stat = 'x'", "unknown key: got stat. Did you mean state?"),
        ("validation_fraction = 1.0", "validation_fraction"),
        ("labels = 'a, a'", "labels is out of range: expected different names"),
        ("[server]\naddress = 'hub'", r"address is out of range: expected host:port"),
        ("[server]\naddress = 'hub:70000'", r"address is out of range: expected host:port"),
        ("[server]\naddress = 'h:1'\ninsecure = true\nprivate_key = 'k'", "insecure excludes"),
        ("[server]\ninsecure = 1", "insecure has the wrong type"),
        ("[policy]\nmaximum_steps = 0", "maximum_steps is out of range"),
    ],
)
def test_an_invalid_configuration_is_refused(tmp_path, more, message):
    with pytest.raises(ConfigError, match=message):
        read_config(digits_site(tmp_path, more=more))


@pytest.mark.parametrize("name", ["", "North", "a/b", "-a", "a" * 64])
def test_an_invalid_name_is_refused(tmp_path, name):
    path = digits_site(tmp_path)
    path.write_text(path.read_text().replace("north", name))
    with pytest.raises(ConfigError, match="name is out of range"):
        read_config(path)


def test_an_address_has_a_host_and_a_port():
    assert ServerConfig(address="hub.example.org:9092").host_and_port == ("hub.example.org", 9092)
    assert ServerConfig(address="[::1]:80").host_and_port == ("::1", 80)


def test_its_own_classes_are_numbered_from_0_in_the_order_of_their_labels(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.eye(6), y=[7, 2, 2, 9, 9, 7])
    path = tmp_path / "site.toml"
    names = [str(label) for label in range(10)]
    path.write_text(f'name = "a"\ndata = "train.npz"\nlabels = {names}')
    site = open_site(path)
    own = site.with_own_classes()
    assert (site.classes, own.classes, own.labels) == (10, 3, ("2", "7", "9"))
    assert sorted(own.train.y.tolist() + own.validation.y.tolist()) == [0, 0, 1, 1, 2, 2]
    for before, after in ((site.train, own.train), (site.validation, own.validation)):
        assert [own.labels[label] for label in after.y.tolist()] == list(
            map(str, before.y.tolist())
        )
        assert torch.equal(before.x, after.x)


def test_own_classes_that_are_numbered_already_stay_without_names(tmp_path):
    own = open_site(digits_site(tmp_path)).with_own_classes()
    assert (own.classes, own.labels) == (3, ())


def test_names_without_examples_are_none_of_its_classes(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.eye(4), y=np.array(["b", "b", "d", "d"]))
    path = tmp_path / "site.toml"
    path.write_text('name = "a"\ndata = "train.npz"\nlabels = "d, c, b, a"')
    own = open_site(path).with_own_classes()
    assert (own.classes, own.labels) == (2, ("d", "b"))
