"""f2l-admin target: a user's own network and backbone, looked at and prepared on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from f2l_fed.core.private_files import exported_files
from f2l_fed.core.wording import number_of
from f2l_fed.errors import TargetError, UsageError, visible

app = typer.Typer(
    help="Check a network of your own, and prepare a pretrained backbone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="TARGET", help="module:factory, or a known name.")],
    inputs: Annotated[
        str, typer.Option("--input", metavar="N,N,N", help="Build it for inputs of this shape.")
    ] = "1,28,28",
    classes: Annotated[int, typer.Option(min=2, help="Build it with this many outputs.")] = 5,
) -> None:
    """Build a network as sites do; print what is generated of it, or why it can't be."""
    from f2l_fed.local_training.config import HeadConfig
    from f2l_fed.symmetry.channel_tracing import hidden_spaces
    from f2l_fed.targets.build import build_target
    from f2l_fed.targets.description import TargetDescription

    shape = _sizes("--input", inputs)
    target = build_target(name, shape, classes)
    found = TargetDescription.of(target)
    for tensor, sizes in found.tensors:
        print(visible(f"{tensor:<32} {'x'.join(map(str, sizes))}"))
    print(visible(f"head        {found.head}"))
    print(f"numbers     {found.size} trained, {found.frozen} frozen")
    try:
        spaces = hidden_spaces(target)
        units = ", ".join(str(space.size) for space in spaces) or "none"
        print(f"symmetries  hidden units that may change places: {units}")
    except TargetError as error:
        print(visible(f"symmetries  {error}"))
    print(f"layout      {found.digest}")
    if not found.remarks:
        pairs = HeadConfig().pairs
        print(
            f"a round     {found.bytes_up(pairs)} bytes up: a body of {found.body} numbers and "
            f"{pairs} pairs of heads of {found.head_size}"
        )
    for remark in found.remarks:
        print(visible(f"remark: {remark}"))


@app.command()
def prepare(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="module:factory, whose factory() returns it without a head; timm:NAME; or "
            "hf:FOLDER, a transformer of texts.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write (.safetensors).")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Read its weights (.safetensors) here; by default the factory's."),
    ] = None,
    inputs: Annotated[
        str,
        typer.Option("--input", metavar="N,N,N", help="Take inputs like 3,64,64."),
    ] = "",
    like: Annotated[
        Path | None,
        typer.Option(
            help="Centre features on these public examples; by default on synthetic pictures."
        ),
    ] = None,
    resize: Annotated[
        str, typer.Option(metavar="H,W", help="Resize images to this before the network.")
    ] = "",
    mean: Annotated[
        str, typer.Option(metavar="N,N,N", help="Subtract this from each channel.")
    ] = "",
    std: Annotated[str, typer.Option(metavar="N,N,N", help="Divide each channel by this.")] = "",
    text: Annotated[
        str, typer.Option(metavar="COLUMN", help="Take the texts in this column of --like.")
    ] = "",
    text_bytes: Annotated[int, typer.Option(min=1, help="Cut texts to so many bytes.")] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Cut texts to so many tokens.")] = 128,
    adapt: Annotated[
        str,
        typer.Option(help="Adapt besides the head: last-block, norm-bias or lora of the --layer."),
    ] = "head",
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Adapt this submodule; can be given several times."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the changes of lora.")] = 4,
) -> None:
    """Write a backbone's file for all sites, and print what the federation has to know of it."""
    import torch

    from f2l_fed.data.own_data import read_public
    from f2l_fed.data.readers.config import ReadingConfig
    from f2l_fed.targets.backbone_file import BackboneFacts
    from f2l_fed.targets.backbone_network import for_site, network_in
    from f2l_fed.targets.backbone_preparation import prepare_backbone
    from f2l_fed.targets.config import HEAD, LORA

    if out.exists():
        raise UsageError(
            "the file exists already", where=str(out), remedy="Choose another, or remove it."
        )
    if not out.absolute().parent.is_dir():
        raise UsageError("there is no such folder", where=str(out.parent), remedy="Make it first.")
    shape = _sizes("--input", inputs) if inputs else ()
    public = None
    if text and like is None:
        raise UsageError("there is no table to take it of", where="--text", expected="--like")
    if like is not None:
        read, remarks = read_public(like, ReadingConfig(text=text, text_bytes=text_bytes))
        public = torch.from_numpy(read)
        for remark in remarks if text else ():
            print(visible(f"remark: {remark}"))
        if shape and shape != tuple(public.shape[1:]):
            raise UsageError(
                "the examples have another shape",
                where=str(like),
                expected=str(shape),
                got=str(tuple(public.shape[1:])),
            )
        shape = tuple(public.shape[1:])
    if not shape:
        raise UsageError(
            "no shape of inputs is named", expected="--input, or --like, and --text for texts"
        )
    if bool(layer) != (adapt != HEAD):
        remedy = "name a part with --adapt" if layer else "name the --layer"
        raise UsageError("layers and a part of them go together", where="--adapt", remedy=remedy)
    facts = BackboneFacts(
        input_shape=shape,
        features=1,
        resize=_sizes("--resize", resize) if resize else (),
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        adapt=adapt,
        layers=tuple(layer or ()),
        rank=rank if adapt == LORA else 0,
    )
    file = prepare_backbone(
        network_in(Path(), network), weights, facts, public, tokens=tokens if text else 0
    )
    with exported_files():
        file.write(out)
    part = file.part
    print(visible(f"{out}: {network}, {number_of(part.features, 'feature')}"))
    print("Its federation, beside the number of classes:")
    print(f'[target]\nname = "adapter"\nadapt = "{adapt}"\ninput_shape = {list(shape)}')
    print(f'backbone = "{part.digest}"\nfeatures = {part.features}')
    if part.adapted:
        print(f"adapted = {part.adapted}")
    print("Each site, which has the file and the network's code:")
    if text:
        print(f"[data]\ntext = {_quoted(text)}\ntext_bytes = {text_bytes}")
    print("[backbone]")
    print(f"file = {_quoted(out.name)}")
    print(f"network = {_quoted(for_site(network))}")


def _quoted(text: str) -> str:
    """A text as a string of TOML, in printable characters alone."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)


def _sizes(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise UsageError(
            "no sizes", where=option, expected="whole numbers > 0, separated by commas", got=text
        )
    return tuple(int(part) for part in parts)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(
            "not numbers", where=option, expected="numbers, separated by commas", got=text
        ) from error
