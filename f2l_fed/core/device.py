"""The setting of the device that computes: the CPU, or a GPU by CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from f2l_fed.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
"""Names of devices in configurations; "auto" is the GPU where there is one."""


def device_of(name: str, where: str = "device") -> torch.device:
    """The device of a name in `DEVICES`, in the process that is to use it.

    Args:
        name: The name.
        where: The key that it stands under.

    Raises:
        ConfigError: If it is "cuda", and torch finds no GPU.

    >>> device_of("cpu")
    device(type='cpu')
    """
    # Imported here, since commands that compute nothing read configurations without it.
    import torch

    # A process that has looked for GPUs can't be forked, so "cpu" does not look.
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if name == "cuda":
        why = "torch finds none" if torch.version.cuda else "this torch is built without CUDA"
        raise ConfigError(
            "there is no GPU to compute on",
            where=where,
            got=f"{name!r}, and {why}",
            remedy='Install a driver and a torch with CUDA, or write "cpu" or "auto".',
        )
    return torch.device("cpu")
