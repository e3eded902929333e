"""What is measured of a run as it trains: the loss on held-out images, and evaluations.

Neither moves a random stream of training: a run ends with the same bits whether it is watched or
not. Both are of the averaged weights, and the same again where a run that was stopped goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from ssmdiff import (
    BackboneMethod,
    BestCheckpoint,
    Config,
    ImageDataset,
    ImageItem,
    Look,
    Method,
    SsmdiffError,
    Watched,
    job,
    order_tensors,
    permutation,
    stream,
)
from torch import Tensor, nn

from ssmdiff_train import reports
from ssmdiff_train.telling import Telling

if TYPE_CHECKING:
    from ssmdiff_train.loop import Trainer

_CHUNK = 8  # images at once: fewer than a step holds with its gradients


class HeldOutLoss:
    """The loss at a fixed set of (image, place, noise): curves of one data set are comparable.

    The images are spread over all that are held out, the places on the way from image to noise over
    what training draws, one in each of as many equal parts as there are draws.

    Args:
        config: Of the run. The draws are a function of its seed and of the number of images alone.
        held_out: The images.
        method: What is trained; of its orders those of fixed steps are taken.
        telling: What the model is told of each, all that is known; nothing by default.

    Raises:
        DataError: An image cannot be read, or what is told of it cannot be told.
    """

    def __init__(
        self,
        config: Config,
        held_out: ImageDataset,
        method: BackboneMethod,
        telling: Telling | None = None,
    ) -> None:
        self.method = method
        count, seed = config.train.held_out_images, config.seed
        places = [i * len(held_out) // count for i in range(count)]
        known = {place: ImageItem(*held_out[place]) for place in sorted(set(places))}
        items = [known[place] for place in places]
        x_0 = torch.stack([item.image for item in items])
        part = permutation(stream(seed, "held-out timesteps"), count)
        inside = stream(seed, "held-out places").random(count)
        shape = tuple(x_0.shape[1:])
        noises = [
            stream(seed, "held-out noise", i).standard_normal(shape, dtype=np.float32)
            for i in range(count)
        ]
        self.batch = {
            "x_0": x_0,
            "noise": torch.from_numpy(np.stack(noises)),
            "label": torch.tensor([item.label for item in items]),
            **(telling or Telling()).batch(held_out, items),
            **method.spread(part + inside, count),
        }

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Figures by name: the mean ``held_out_loss``, and what the method tells beside it."""
        device = next(model.parameters()).device
        found: dict[str, list[Tensor]] = {}
        for number, start in enumerate(range(0, len(self.batch["x_0"]), _CHUNK)):
            batch = {k: v[start : start + _CHUNK].to(device) for k, v in self.batch.items()}
            orders = order_tensors(self.method.plan.draw(number), device)
            for name, losses in self.method.held_out(model, batch, orders).items():
                found.setdefault(f"held_out_{name}", []).append(losses.double().cpu())
        return {name: float(torch.cat(losses).mean()) for name, losses in found.items()}


class Watching:
    """What a run measures of itself, and when.

    Args:
        config: Of the run.
        dataset: That it trains on.
        method: What is trained; of a backbone along a scan the loss on held-out images is told.
        accelerator: Its main process measures; the others draw their part of the images.
        telling: What the model is told.

    Raises:
        ConfigError: The run cannot be judged as it asks.
        PluginError: A package or plugin that it needs is missing.
    """

    def __init__(
        self,
        config: Config,
        dataset: ImageDataset,
        method: Method,
        accelerator: Accelerator,
        telling: Telling,
    ) -> None:
        train, main = config.train, accelerator.is_main_process
        self.method = method
        self.told: list[str] = list(method.told())
        self.held_out: HeldOutLoss | None = None
        self.watch: Any = None
        images = getattr(dataset, "held_out", None)
        with torch.random.fork_rng(devices=[]):
            due = main and 0 < train.held_out_every <= train.steps
            if due and images is not None and isinstance(method, BackboneMethod):
                self.held_out = HeldOutLoss(config, images, method, telling)
                self.told.append(
                    f"held out: the loss on {train.held_out_images} images that are not trained "
                    f"on, every {train.held_out_every} steps"
                )
            if train.evaluate_every:
                self.watch = job("evaluate").watch(config, dataset)
                if main:
                    self.told.append(self.watch.prove())

    def look(self, trainer: Trainer, figures: Mapping[str, float] | None = None) -> None:
        """Measure what is due after the step that was done.

        Args:
            trainer: At that step.
            figures: Of it; None where it was done before the run was stopped.
        """
        train = trainer.config.train
        with torch.random.fork_rng(devices=[]):
            if self.held_out and self._due(train.held_out_every, trainer):
                for name, value in self.held_out(trainer.averaged).items():
                    trainer.emit("reported", name=name, value=value, step=trainer.step)
            if figures is not None and trainer.accelerator.is_main_process:
                self._by_the_method(trainer, figures)
            if self.watch and self._due(train.evaluate_every, trainer):
                self._judge(trainer)

    def _by_the_method(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        """What the method itself makes of the step."""

        def drawn(count: int) -> Tensor:
            parts = (self.method, trainer.config, trainer.dataset, trainer.telling)
            return reports.drawn(trainer.averaged, *parts, count)[0]

        def real(count: int) -> Tensor:
            return torch.stack([item.image for item in reports.spread(trainer.dataset, count)])

        seen = self.method.look(Look(trainer.step, figures, drawn, real))
        for name, value in seen.figures.items():
            trainer.emit("reported", name=name, value=value, step=trainer.step)
        for doubt in seen.doubts:
            warnings.warn(doubt, stacklevel=2)

    def _due(self, every: int, trainer: Trainer) -> bool:
        last = trainer.step == trainer.config.train.steps
        return trainer.step > 0 and (last or trainer.step % every == 0)

    def _judge(self, trainer: Trainer) -> None:
        """Evaluate a checkpoint of this step: if the process is killed in it, no step is lost."""
        trainer.save()
        trainer.accelerator.wait_for_everyone()
        try:
            found = self.watch(trainer.folder.path, f"step-{trainer.step:08d}")
        except SsmdiffError:
            raise
        except Exception as error:  # whatever a stranger's metric or network raises
            raise trainer.explained(error) from error
        if found is not None:
            for figure in found.figures:
                trainer.emit("reported", name=figure.name, value=figure.value, step=trainer.step)
            keep_best(trainer, found)


def keep_best(trainer: Trainer, found: Watched) -> None:
    """Let the checkpoint of this step be the best, if it is."""
    best, folder = found.best, trainer.folder
    if best is None or best.better == "reference":
        return
    this = BestCheckpoint(
        checkpoint=f"step-{trainer.step:08d}",
        figure=best.name,
        value=best.value,
        better=best.better,
        protocol=found.protocol,
    )
    before = folder.best()
    if not this.beats(before):
        return
    if before and (before.figure, before.protocol) != (this.figure, this.protocol):
        warnings.warn(
            f"the best checkpoint so far, {before.checkpoint} by {before.figure}, was judged "
            "otherwise than this run is now, so it is not compared; the best is chosen anew",
            stacklevel=2,
        )
    folder.keep_best(this)
