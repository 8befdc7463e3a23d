"""Commands that use the site's network: predict for files, and measure it on labelled ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from clients.commands.console import AsJson, SiteFile, err, out, plain, say
from f2l_fed.core.command_line import interruption_told
from f2l_fed.core.private_files import exported_files
from f2l_fed.core.wording import number_of
from f2l_fed.errors import DataError, UsageError, visible

if TYPE_CHECKING:
    from clients.site.prediction import Predictor
    from clients.site.site_folder import SiteFolder
    from f2l_fed.data.readers.findings import Findings


@interruption_told("no predictions are written")
def predict(
    site_file: SiteFile,
    inputs: Annotated[
        Path,
        typer.Option("--input", help="Read a table, an .npz, an image or a folder of images."),
    ],
    output: Annotated[Path, typer.Option(help="Write predictions to a .csv or .jsonl file.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Abstain below this probability; by default as --goal asks."
        ),
    ] = None,
    goal: Annotated[
        float,
        typer.Option(
            min=0.01, max=1, help="Reach this accuracy on validation examples that are answered."
        ),
    ] = 0.95,
    force: Annotated[bool, typer.Option(help="Replace the output.")] = False,
) -> None:
    """Predict with the site's network: label, probability, and whether it abstains."""
    from clients.site.prediction import site_threshold, write_predictions
    from clients.site.site_folder import SiteFolder
    from f2l_fed.data.readers.findings import Findings

    lines = output.suffix.lower() in (".jsonl", ".ndjson")
    if not lines and output.suffix.lower() != ".csv":
        raise UsageError(
            "unknown format of predictions", where=str(output), expected="a .csv or .jsonl file"
        )
    if output.exists() and not force:
        raise UsageError(
            "the file exists already",
            where=str(output),
            remedy="Choose another, or replace it with --force.",
        )
    _require_folder(output)
    folder = SiteFolder.read(site_file)
    predictor = _predictor(folder)
    if threshold is None:
        threshold = site_threshold(folder, predictor, goal)
        say(
            f"abstains below {threshold:.3f}; validation examples above are right in {goal:.0%}"
            if threshold <= 1
            else f"abstains always: at no threshold are validation examples right in {goal:.0%}"
        )
    findings, written, abstained = Findings(str(inputs)), 0, 0
    total, batches = predictor.predict(inputs, findings, threshold=threshold)
    draft = output.with_name(f".{output.name}.draft")
    try:
        with (
            exported_files(),
            draft.open("w", encoding="utf-8", newline="") as file,
            Progress(console=err, transient=True, disable=not err.is_terminal) as progress,
        ):
            bar = progress.add_task("predicting", total=total)
            for batch in batches:
                write_predictions(batch, file, lines=lines, first=not written)
                written += len(batch)
                abstained += sum(one.abstain for one in batch)
                progress.update(bar, completed=written)
        if not written:
            raise DataError("nothing can be predicted", where=str(inputs), got=_said(findings))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    for remark in findings.remarks:
        say(f"remark: {remark}")
    predicted = number_of(written, "prediction is", "predictions are")
    say(f"{predicted} in {output}, {number_of(abstained, 'abstains', 'abstain')}")


def evaluate(
    site_file: SiteFile,
    data: Annotated[Path, typer.Option(help="Measure on labelled examples, new to it.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw the calibration to this .svg file, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the site's network: accuracy, confusion matrix and calibration."""
    from clients.site.calibration_picture import calibration_svg
    from clients.site.prediction import evaluate as measure
    from clients.site.site_folder import SiteFolder
    from f2l_fed.data.readers.findings import Findings

    if picture is not None:
        if picture.suffix.lower() != ".svg":
            raise UsageError(
                "unknown format of pictures", where=str(picture), expected="an .svg file"
            )
        _require_folder(picture)
    predictor = _predictor(SiteFolder.read(site_file))
    findings = Findings(str(data))
    measured = measure(predictor, predictor.labelled(data, findings))
    if picture is not None:
        with exported_files():
            picture.write_text(calibration_svg(measured["calibration"]), "utf-8")
    if as_json:
        print(json.dumps({**measured, "remarks": findings.remarks}, indent=1))
        return
    for remark in findings.remarks:
        say(f"remark: {remark}")
    low, high = measured["interval"]
    say(
        f"accuracy {measured['accuracy']:.3f} on {number_of(measured['examples'], 'example')} "
        f"(95% interval {low:.3f} to {high:.3f})"
    )
    labels = measured["labels"]
    table = Table("true label", *map(plain, labels), box=None, title="predicted")
    for label, row in zip(labels, measured["confusion"], strict=True):
        table.add_row(plain(label), *map(str, row))
    out.print(table)
    table = Table("predictions", "mean probability", "accuracy", box=None, title="calibration")
    for part in measured["calibration"]:
        table.add_row(
            str(part["predictions"]), f"{part['probability']:.3f}", f"{part['accuracy']:.3f}"
        )
    out.print(table)
    say(f"calibration error {measured['calibration_error']:.3f}")
    if picture is not None:
        say(f"the calibration is drawn in {picture}")


def _require_folder(output: Path) -> None:
    """Raises UsageError unless the folder of a file that is to be written is there."""
    if not output.absolute().parent.is_dir():
        raise UsageError(
            "there is no such folder", where=str(output.parent), remedy="Make it first."
        )


def _predictor(folder: SiteFolder) -> Predictor:
    from clients.site.model_store import load_model
    from clients.site.prediction import Predictor
    from clients.site.site_features import backbone_of

    model = load_model(folder.state)
    if model is None:
        raise UsageError(
            "this site has no network yet",
            where=str(folder.file),
            remedy=f"Get one: f2l-site generate {folder.file}",
        )
    backbone = backbone_of(folder, model.facts.frozen)
    return Predictor(model=model, reading=folder.config.data, backbone=backbone)


def _said(findings: Findings) -> str:
    return visible(" ".join(findings.remarks)) or "no inputs"
