"""The training of the flow on Ray Train: data-parallel, with checkpoints for lost workers.

All workers draw the same batches from the same seed and take their part of each, so that one
worker does to the bit what the retraining's own process would, and several the same up to rounding.
Workers and the retraining exchange files in a folder on shared storage. They start only where the
fit has a point: the retraining's own process takes the steps until a validation is better than the
start, and mostly none is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.config import RayConfig
from f2l_fed.core.device import device_of
from f2l_fed.core.private_files import private_files
from f2l_fed.errors import RoundError, is_disk_failure
from f2l_fed.flow import FlowConfig, FlowFit, VelocityField, VelocityTraining, fit_flow
from f2l_fed.flow.film_network import FilmNetwork
from server.cluster.gpu_share import gpu_share
from server.cluster.process_group import LoopbackConfig

_CHECKPOINT = "training.pt"
_ONE_BYTE = {"memory": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFlow:
    """`f2l_fed.flow.fit_flow` on Ray Train; a connected Ray is needed when it is called.

    Args:
        folder: On storage that all nodes share; replaced, and deleted at the end.
        config: Number of workers, CPUs and threads of each, and how many may be lost.
    """

    folder: Path
    config: RayConfig

    def __call__(
        self,
        targets: Tensor,
        expected: Tensor,
        spread: Tensor,
        shape: LatentShape,
        config: FlowConfig,
        rng: torch.Generator,
        *,
        group: int = 1,
    ) -> FlowFit:
        """See `f2l_fed.flow.fit_flow`.

        Raises:
            RoundError: If more workers were lost than may be, or the fit failed.
        """
        fit = _first_look(targets, expected, spread, shape, config, rng, group)
        if fit is not None:
            return fit
        folder = self.folder.absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        given = {"targets": targets, "expected": expected, "spread": spread, "rng": rng.get_state()}
        save_file({name: t.contiguous().clone() for name, t in given.items()}, folder / "given")
        try:
            return self._fitted(folder, shape, config, group, spread, rng)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fitted(
        self,
        folder: Path,
        shape: LatentShape,
        config: FlowConfig,
        group: int,
        spread: Tensor,
        rng: torch.Generator,
    ) -> FlowFit:
        cpus, gpus = self.config.task_cpus, gpu_share(self.config.device, ray.cluster_resources())
        resources = {"CPU": cpus} if cpus else _ONE_BYTE
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "folder": str(folder),
                "shape": shape,
                "config": config,
                "group": group,
                "threads": self.config.threads,
                "device": self.config.device,
            },
            torch_config=TorchConfig(backend="gloo")
            if self.config.address
            else LoopbackConfig(folder=str(folder)),
            scaling_config=ScalingConfig(
                num_workers=self.config.train_workers,
                # Something has to be booked, and a simulation's sites book all CPUs.
                resources_per_worker=resources | ({"GPU": gpus} if gpus else {}),
                use_gpu=gpus > 0,
            ),
            run_config=RunConfig(
                name="flow",
                storage_path=str(folder),
                failure_config=FailureConfig(max_failures=self.config.train_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            for cause in getattr(error, "worker_failures", {}).values():
                if is_disk_failure(cause):
                    raise cause from error
            raise RoundError(
                "the flow could not be trained on the cluster",
                got=str(error).strip().splitlines()[-1],
                remedy="What sites have sent is in the zoo; start another round.",
            ) from error
        made = load_file(folder / "made")
        rng.set_state(made.pop("rng"))
        loss, normal_loss, step, speed, margin = made.pop("course").tolist()
        field = VelocityField(shape, spread, config.source, width=config.width, depth=config.depth)
        field.load_state_dict(made)
        return FlowFit(
            field=field.requires_grad_(False),
            loss=loss,
            normal_loss=normal_loss,
            step=int(step),
            speed=speed,
            error=margin,
        )


class _PromisingError(Exception):
    """A validation that is better than the start."""


def _first_look(
    targets: Tensor,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    config: FlowConfig,
    rng: torch.Generator,
    group: int,
) -> FlowFit | None:
    """The fit in this process if its start wins; else None, with ``rng`` as it was."""
    begun = rng.get_state()

    def stop(state: dict[str, Any]) -> None:
        if state["best_step"]:
            raise _PromisingError

    look = VelocityTraining(keep=stop)
    try:
        return fit_flow(targets, expected, spread, shape, config, rng, group=group, training=look)
    except _PromisingError:
        rng.set_state(begun)
        return None


@private_files()
def _work(settings: dict[str, Any]) -> None:
    """Trains the flow in one worker."""
    torch.set_num_threads(settings["threads"])
    folder, config = Path(settings["folder"]), settings["config"]
    here = ray.train.get_context()
    # For those who want to see, or end, the processes at work.
    (folder / f"worker-{here.get_world_rank()}.pid").write_text(str(os.getpid()))
    given = load_file(folder / "given")
    rng = torch.Generator()
    rng.set_state(given["rng"])
    fit = fit_flow(
        given["targets"],
        given["expected"],
        given["spread"],
        settings["shape"],
        config,
        rng,
        group=settings["group"],
        training=VelocityTraining(
            rank=here.get_world_rank(),
            count=here.get_world_size(),
            merge=_averaged if here.get_world_size() > 1 else _alone,
            keep=_report,
            last=_last(),
        ),
        device=device_of(settings["device"], "ray.device"),
    )
    if here.get_world_rank() == 0:
        course = torch.tensor(
            [fit.loss, fit.normal_loss, fit.step, fit.speed, fit.error], dtype=torch.float64
        )
        made = {**fit.field.state_dict(), "rng": rng.get_state(), "course": course}
        save_file({name: t.contiguous() for name, t in made.items()}, folder / "made.draft")
        (folder / "made.draft").replace(folder / "made")


def _alone(_: FilmNetwork) -> None:
    return


def _averaged(network: FilmNetwork) -> None:
    parameters = [p for p in network.parameters() if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    device, flat = flat.device, flat.cpu()
    distributed.all_reduce(flat)
    flat = flat.to(device) / distributed.get_world_size()
    start = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = flat[start : start + size].view_as(parameter)
        start += size


def _report(state: dict[str, Any]) -> None:
    figures = {"step": state["step"], "loss": state["best"]}
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(figures)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / _CHECKPOINT)
        ray.train.report(figures, checkpoint=Checkpoint.from_directory(folder))


def _last() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(
            Path(folder) / _CHECKPOINT, map_location="cpu", weights_only=True
        )
    return state
