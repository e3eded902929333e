"""One training step of a method: a function of its images, their draws, and the weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from ssmdiff import Batch, Config, DivergedError, Method, Update, order_tensors, stream_seed
from torch import Tensor

from ssmdiff_train import faults
from ssmdiff_train.networks import Networks

SKIPPED_STEPS = 20  # consecutive overflows that the fp16 loss scaler may need to find its scale
LOSS = "loss"


class Place(NamedTuple):
    """Where a run is before a step."""

    step: int
    images_seen: int
    rate: float
    """The learning rate of the step."""


class Told(NamedTuple):
    """What a step tells."""

    loss: float
    """Of the network that draws, over the global batch."""
    norm: float
    """Of its gradient."""
    figures: Mapping[str, float]
    """The losses of other networks, and what the method tells besides."""
    signal: int
    """That any process received."""


class TrainingStep:
    """Called with a batch, it does the updates of a method one after the other.

    Args:
        config: Of the run.
        method: What is trained.
        networks: Its networks.
        accelerator: Of this process.
        fallback: A clause on the newest checkpoint, for messages.
    """

    def __init__(
        self,
        config: Config,
        method: Method,
        networks: Networks,
        accelerator: Accelerator,
        fallback: Callable[[], str],
    ) -> None:
        self.config, self.method, self.networks = config, method, networks
        self.accelerator, self.fallback = accelerator, fallback
        self.updates = method.updates(networks.wrapped)
        self.skipped = 0

    def __call__(self, batch: Batch, place: Place, signal: int) -> Told:
        """One training step on this process's share of a batch."""
        config, device = self.config, self.accelerator.device
        # Dropout, if any: the same after a resume, different on each process.
        torch.manual_seed(
            stream_seed(config.seed, "torch", place.images_seen, self.accelerator.process_index)
        )
        batch = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
        orders = order_tensors(self.method.plan.draw(place.images_seen), device)
        share = len(batch["x_0"])
        size = min(config.train.micro_batch_size or share, share)
        parts = [{n: x[i : i + size] for n, x in batch.items()} for i in range(0, share, size)]
        loss, norm, figures = 0.0, 0.0, dict[str, float]()
        for update in self.updates:
            found, its_norm, signal = self._update(update, parts, orders, place, signal)
            if update.network == self.networks.drawing:
                loss, norm = found.pop(LOSS), its_norm
            else:
                found[f"{update.network}_loss"] = found.pop(LOSS)
            figures |= found
        return Told(loss, norm, figures, signal)

    def _update(
        self,
        update: Update,
        parts: Sequence[Batch],
        orders: Sequence[Tensor],
        place: Place,
        signal: int,
    ) -> tuple[dict[str, float], float, int]:
        """A step of one optimiser. Returns the figures, the gradient norm, any signal."""
        accelerator, train = self.accelerator, self.config.train
        share = sum(len(part["x_0"]) for part in parts)
        progress = place.step / train.steps
        told: list[dict[str, Tensor]] = []
        with self.networks.moving(update.network) as network:
            for i, part in enumerate(parts):
                last = i == len(parts) - 1
                with nullcontext() if last else accelerator.no_sync(network):
                    figures = update.losses(part, orders, progress)
                    accelerator.backward(figures[LOSS].sum() / share)
                told.append({name: values.detach() for name, values in figures.items()})
            joined = {name: torch.cat([one[name] for one in told]) for name in told[0]}
            found, signal = self._agree(joined, signal)
            norm = float(
                accelerator.clip_grad_norm_(network.parameters(), train.grad_clip or math.inf)
            )
            self._refuse_non_finite(update, found[LOSS], norm, parts, orders, place)
            optimizer = self.networks.optimizers[update.network]
            for group in optimizer.param_groups:
                group["lr"] = place.rate * self.method.adam(update.network).rate
            stepper = self.networks.steppers[update.network]
            stepper.step()
            stepper.zero_grad()
        if update.network == self.networks.drawing and not stepper.step_was_skipped:
            self.networks.ema.update_parameters(self.networks.modules[update.network])
        return found, norm, signal

    def _agree(self, figures: Mapping[str, Tensor], signal: int) -> tuple[dict[str, float], int]:
        """Means over the global batch, and a signal that any process received."""
        values = torch.cat([one.double() for one in figures.values()])
        message = torch.cat([values, values.new_tensor([signal])])
        rows = self.accelerator.gather(message[None])
        each = rows[:, :-1].split([len(one) for one in figures.values()], dim=1)
        means = {name: float(part.mean()) for name, part in zip(figures, each, strict=True)}
        return means, int(rows[:, -1].max())

    def _refuse_non_finite(
        self,
        update: Update,
        loss: float,
        norm: float,
        parts: Sequence[Batch],
        orders: Sequence[Tensor],
        place: Place,
    ) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped = 0
            return
        self.skipped += 1
        scaled = self.accelerator.scaler is not None
        if math.isfinite(loss) and scaled and self.skipped <= SKIPPED_STEPS:
            return  # the scaler lowers its scale and skips this step
        network, progress = (
            self.networks.modules[update.network],
            place.step / self.config.train.steps,
        )
        culprit = ""
        for part in parts:
            again = functools.partial(update.losses, part, orders, progress)
            culprit = faults.first_non_finite(network, again)
            if not culprit.startswith("no module"):
                break
        raise DivergedError(
            f"step {place.step + 1} is not finite: loss {loss}, gradient norm {norm}, learning "
            f"rate {place.rate:g}; first at {culprit}. This state is not saved; "
            f"{self.fallback()}. Try a lower learning rate, or another precision or kernel"
        )
