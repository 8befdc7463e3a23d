"""The inspection of a user's network: built once, called once, and its output layer found.

Whatever a factory or a network raises is answered with one sentence that holds its own words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from f2l_fed.errors import TargetError


def fresh_network(
    factory: Callable[[], nn.Module], input_shape: tuple[int, ...], seed: int, *, where: str
) -> nn.Module:
    """A network of a factory, initialised by a seed and ready to predict.

    Lazy layers get their shapes, and their values, by one call on zeros.

    Raises:
        TargetError: If the factory fails or returns anything else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = factory()
        except TargetError:
            raise
        except Exception as error:
            raise TargetError(
                "the factory fails",
                where=where,
                got=told(error),
                remedy="It is called with the shape of one input and the number of classes.",
            ) from error
        network = as_network(network, where=where)
        # Dropout would make the outputs depend on more than weights and inputs.
        network.eval()
        tensors = (*network.parameters(), *network.buffers())
        if any(
            isinstance(tensor, UninitializedParameter | UninitializedBuffer) for tensor in tensors
        ):
            called(network, torch.zeros(2, *input_shape), where=where)
    return network


def as_network(made: object, *, where: str) -> nn.Module:
    """The network that a factory has made; raises TargetError if it is none."""
    if not isinstance(made, nn.Module):
        raise TargetError(
            "the factory does not return a network",
            where=where,
            expected="a torch.nn.Module",
            got=type(made).__name__,
        )
    return made


@torch.no_grad()
def called(network: nn.Module, x: Tensor, *, where: str) -> Tensor:
    """The output of a network, which must be a tensor.

    Raises:
        TargetError: If the network does not accept the inputs, or returns anything else.
    """
    try:
        output = network(x)
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(
            "the network does not accept the data's inputs",
            where=where,
            expected=f"inputs of shape {tuple(x.shape[1:])}",
            got=told(error),
        ) from error
    if not isinstance(output, Tensor):
        raise TargetError(
            "the network returns no tensor",
            where=where,
            got=type(output).__name__,
            remedy="Wrap it in a module whose forward returns the logits alone.",
        )
    return output


def told(error: Exception) -> str:
    """An exception in one line: its kind and the beginning of its own words."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


def output_layer(
    network: nn.Module, input_shape: tuple[int, ...], classes: int, *, where: str
) -> str:
    """The path of the linear layer whose result is the network's output.

    Where a network does something to that result, it is the linear layer of so many outputs that
    is called last. Layers that the output does not depend on, such as those of an auxiliary head,
    don't count, wherever they are registered.

    Raises:
        TargetError: If there is none, or the network can't be called, is random, changes when it
            predicts, or has another output.
    """
    x = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    results: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: results.append((name, output))
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        output = called(network, x, where=where)
    finally:
        for hook in hooks:
            hook.remove()
    _require_output(network, x, output, before, classes, where)
    same = [name for name, result in results if result is output]
    same = same or [
        name for name, result in results if result.shape == output.shape and result.equal(output)
    ]
    if found := same or [name for name, _ in results]:
        return found[-1]
    raise TargetError(
        "no linear output layer found",
        where=where,
        expected=f"a last torch.nn.Linear with {classes} outputs",
    )


def _require_output(
    network: nn.Module,
    x: Tensor,
    output: Tensor,
    before: Sequence[Tensor],
    classes: int,
    where: str,
) -> None:
    if output.shape != (2, classes):
        raise TargetError(
            "the network has the wrong output shape",
            where=where,
            expected=f"(batch, {classes})",
            got=f"(batch{''.join(f', {n}' for n in output.shape[1:])})",
        )
    if not bool(output.isfinite().all()):
        raise TargetError(
            "the network's outputs are not finite, even for numbers between 0 and 1", where=where
        )
    if not all(map(torch.equal, before, network.buffers())):
        raise TargetError(
            "the network changes its own buffers when it predicts",
            where=where,
            remedy="Let forward leave them alone in eval mode.",
        )
    if not torch.equal(called(network, x, where=where), output):
        raise TargetError(
            "the network gives other outputs for the same inputs",
            where=where,
            remedy="Let it draw nothing at random in eval mode.",
        )
    if bool((output >= 0).all()) and torch.allclose(output.sum(1), torch.ones(2), atol=1e-5):
        raise TargetError(
            "the network's outputs are probabilities",
            where=where,
            expected="logits",
            remedy="Leave the final softmax out: the loss applies it.",
        )
