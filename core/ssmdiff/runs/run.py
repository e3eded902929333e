"""A trained model, out of a run's folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssmdiff.diffusion.conditions import Conditions
from ssmdiff.diffusion.cuda_graphs import RecordedDenoiser
from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.image_model import ImageModel, SamplingSettings
from ssmdiff.diffusion.interfaces import NoiseScheduler
from ssmdiff.diffusion.one_call import STEPS, refuse_walk
from ssmdiff.errors import CheckpointError, ConfigError, SsmdiffError, did_you_mean
from ssmdiff.networks.compiling import compile_backbone
from ssmdiff.orders.scan import OrderPlan, size_text
from ssmdiff.orders.seeds import Noise
from ssmdiff.runs import checkpoint as ckpt
from ssmdiff.runs import compose
from ssmdiff.runs.config import resolve
from ssmdiff.runs.datasets import conditions_of, told_by
from ssmdiff.runs.folder import CONFIG, RunFolder, listed
from ssmdiff.runs.provenance import made_otherwise
from ssmdiff.runs.scheduling import refuse_other_process
from ssmdiff.runs.sections import parts_of


class Run(ImageModel[Tensor]):
    """A trained model with what is needed to draw from it.

    Attributes:
        folder: Where it was loaded from.
        config: The run's configuration.
        method: What was trained, on the CPU and in training mode but for the network that draws.
        model: That network with the averaged weights, in evaluation mode.
        checkpoint: Which checkpoint the weights are from.
        data: What is kept of the data that it was trained on, see :func:`ssmdiff.data_record`.
        cuda_graphs: On a CUDA device, record the network's launches once for each batch size and
            replay them, where that can be done.
    """

    cuda_graphs = True

    def __init__(self, path: str | Path, checkpoint: str = "latest", ema: bool = True) -> None:
        self.folder = RunFolder(Path(path))
        self.config = self.folder.config()
        self.checkpoint = self.folder.checkpoint(checkpoint)
        state = self.checkpoint.state()
        self.channels, self.classes = self.checkpoint.images(state)
        self.data: Mapping[str, Any] = state.get("provenance", {}).get("data", {})
        self._conditions = self.checkpoint.conditions(state, self.config.model.class_conditional)
        self.method = compose.build_method(self.config, self.channels, self._conditions)
        self.model = self.method.networks[self.method.drawing].eval()
        name = "ema" if ema else self.method.drawing
        ckpt.load_state(self.model, self.checkpoint.tensors(name), self.checkpoint.path)
        self._warn_if_made_otherwise(state)

    def _warn_if_made_otherwise(self, state: Mapping[str, Any]) -> None:
        if changes := made_otherwise(state, self.config, self.plan(), "method", "model", "sample"):
            listed = "; ".join(f"{key}: {then} -> {now}" for key, (then, now) in changes.items())
            warnings.warn(
                f"{self.checkpoint.path} was made with other code than is installed here ({listed})"
                ", so what it draws is not what was trained. Try: install what it was made with",
                stacklevel=4,
            )

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        network = f"{listed(parts_of(self.config.to_dict()))}, {count:,} parameters"
        place = f"{self.folder.path}, {self.checkpoint.path.name}"
        return f"<Run {place}: {network} on {self.device}, images {size_text(self.shape)}>"

    def to(self, device: str | torch.device) -> Run:
        """Move the model."""
        self.model.to(device)
        return self

    def to_accelerator(self) -> Run:
        """Move the model to the accelerator, if there is one: of several cards to the current one,
        or that of the process by its ``LOCAL_RANK``, as torchrun numbers those of a machine."""
        if device := torch.accelerator.current_accelerator(check_available=True):
            rank = int(os.environ.get("LOCAL_RANK", torch.accelerator.current_device_index()))
            torch.accelerator.set_device_index(rank % torch.accelerator.device_count())
        return self.to(device or "cpu")

    def compile(self) -> Run:
        """Compile the model with torch.compile; the work, minutes, is done when it first samples.

        Raises:
            ConfigError: There is no compiler on this machine.
        """
        compile_backbone(self.model)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *image_size)."""
        return (self.channels, *self.config.data.image_size)

    def sampling(
        self,
        scheduler: str | Mapping[str, Any] | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: Any = None,
        told: Mapping[str, Any] | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the run's own scheduler and steps."""
        if "sample.steps" in self.config.unread():
            refuse_walk(scheduler, steps)
            return SamplingSettings({}, STEPS, seed, self.asked(label, told))
        if name := scheduler if isinstance(scheduler, str) else (scheduler or {}).get("name"):
            refuse_other_process(name, self.method.process)
        asked = {"scheduler": scheduler, "steps": steps}
        layer = {key: value for key, value in asked.items() if value is not None}
        chosen = resolve(self.config, {"sample": layer}).sample
        return SamplingSettings(chosen.scheduler, chosen.steps, seed, self.asked(label, told))

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """A noise scheduler over the process that was trained."""
        return self.method.new_scheduler(table)

    @property
    def noise(self) -> Noise:
        """What an image is made from."""
        return self.method.noise

    @property
    def conditions(self) -> Conditions:
        """What the model is told of each image."""
        return self._conditions

    def own_told(self, names: Sequence[str]) -> dict[str, Sequence[Any]]:
        """Masks and images of the run's held-out data."""
        try:
            held_out: Any = getattr(compose.build_dataset(self.config), "held_out", None)
            known = [] if held_out is None else conditions_of(held_out).names
            why = "its data set holds out no images with it"
        except SsmdiffError as error:
            known, why = [], f"its data cannot be opened: {error}"
        if not set(names) <= set(known):
            raise ConfigError(
                f"{names[0]} is not given, and the run has none at hand, since {why}; give it, "
                f"such as --tell {names[0]}=FILE, or told={{{names[0]!r}: array}}"
            )
        return told_by(held_out, (self.conditions.named(name) for name in names))

    def denoiser(self) -> TorchDenoiser:
        """The network on its device; its launches are recorded on a GPU if ``cuda_graphs``."""
        denoise = self.method.denoiser(self.model)
        if self.cuda_graphs and self.device.type == "cuda":
            denoise = RecordedDenoiser(denoise)
        return TorchDenoiser(denoise, self.device)

    def plan(self) -> OrderPlan:
        """The scan orders of every step."""
        return self.method.plan

    def joined(self, batches: Sequence[Tensor]) -> Tensor:
        """On the CPU."""
        return torch.cat([images.cpu() for images in batches])

    @property
    def image_size(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.config.data.image_size

    def origin(self) -> dict[str, Any]:
        """What the weights are, for the record beside the images."""
        weights = self.checkpoint.manifest["files"]["ema.safetensors"]["sha256"]
        return {"checkpoint": self.checkpoint.path.name, "weights_sha256": weights}


def load_run(path: str | Path, checkpoint: str = "latest", ema: bool = True) -> Run:
    """The trained model of a run folder: ``ssmdiff.load_run("runs/heads").sample(16)``.

    Args:
        path: The ``--out`` of ``ssmdiff train``.
        checkpoint: ``latest``, ``best``, or a name such as ``step-00001000``.
        ema: Take the averaged weights (the usual choice) or the raw ones.

    Raises:
        CheckpointError: No run, no valid checkpoint, or a plugin that it needs is missing.
    """
    if not Path(path).is_dir():
        near = [p.name for p in Path(path).absolute().parent.glob("*/") if (p / CONFIG).exists()]
        hint = f"; {did_you_mean(Path(path).name, near)}" if near else ""
        raise CheckpointError(f"there is no run folder {path}{hint}")
    return Run(path, checkpoint, ema)
