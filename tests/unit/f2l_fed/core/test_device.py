"""The setting of the device."""

from __future__ import annotations

import pytest
import torch

from clients.site.config import DataConfig, SiteConfig
from f2l_fed.config import RayConfig
from f2l_fed.core.device import DEVICES, device_of
from f2l_fed.errors import ConfigError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_the_default_is_the_cpu_and_does_not_look_for_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("looked for a GPU"))
    assert device_of(RayConfig().device) == torch.device("cpu")
    assert device_of(SiteConfig(name="a", data=DataConfig(path="x")).device).type == "cpu"


def test_auto_is_the_gpu_where_there_is_one():
    found = device_of("auto").type
    assert found == ("cuda" if torch.cuda.is_available() else "cpu")


@without_gpu
def test_a_gpu_that_is_asked_for_and_not_there_is_told_with_the_remedy():
    with pytest.raises(ConfigError, match=r"ray\.device: there is no GPU .* 'cuda'.*\"auto\"\."):
        device_of("cuda", "ray.device")


def test_other_names_are_refused():
    assert [RayConfig(device=name).device for name in DEVICES] == list(DEVICES)
    with pytest.raises(ConfigError, match=r"device.*one of auto, cpu, cuda"):
        RayConfig(device="gpu")
    with pytest.raises(ConfigError, match=r"device.*one of auto, cpu, cuda"):
        SiteConfig(name="a", data=DataConfig(path="x"), device="cuda:1")
