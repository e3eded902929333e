"""What a method must do: steps that move what they name, and images of a seed and an index."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.sampling import sample
from ssmdiff.networks.backbone import order_tensors
from ssmdiff.orders.seeds import stream
from ssmdiff.runs.compose import build_method
from ssmdiff.runs.config import resolve
from ssmdiff.runs.method import Look, Method, Seen
from ssmdiff.testing import probes
from ssmdiff.testing.probe_run import NAME, probe_parts
from ssmdiff.testing.report import ViolationError
from ssmdiff.testing.suite import Subject, Suite

SIZE, CHANNELS, BATCH, STEPS = (16, 16), 1, 4, 2
TOLERANCE = 1e-5


class MethodSubject(Subject):
    """A method for images of 16 x 16, over the probe's parts of a network if it reads them."""

    @functools.cached_property
    def config(self) -> Any:
        reads = getattr(self.entry.factory(), "reads", ())
        values: dict[str, Any] = {
            "method": self.spec,
            "data": {"dataset": NAME, "image_size": list(SIZE)},
            "train": {"callbacks": []},
        }
        if "model" in reads:
            values["model"] = {"backbone": NAME, "block": NAME, "scan": NAME}
        if "diffusion" in reads:
            values["diffusion"] = {"timesteps": 20}
        if "sample.steps" in reads:
            values["sample"] = {"steps": STEPS}
        return resolve(values)

    @functools.cached_property
    def method(self) -> Method:
        return self.new()

    def new(self) -> Method:
        with probe_parts(), probes.seeded(0):
            return build_method(self.config, CHANNELS)

    def batch(self, first: int = 0) -> dict[str, Tensor]:
        """Images ``first`` and on, with their draws."""
        images = [self._image(i) for i in range(first, first + BATCH)]
        batch: dict[str, Tensor] = default_collate(images)
        return batch

    def _image(self, i: int) -> dict[str, Tensor]:
        image = torch.rand(CHANNELS, *SIZE, generator=torch.Generator().manual_seed(i)) * 2 - 1
        found = self.method.draws(stream(3, "training image", i), image, lambda x: x)
        return {"label": torch.tensor(0), **found}

    def images(self, method: Method, indices: Sequence[int]) -> Tensor:
        """Of seed 5, from the network that draws."""
        network = method.networks[method.drawing].eval()
        with probe_parts():
            scheduler = method.new_scheduler(self.config.sample.scheduler)
        drawn: Tensor = sample(
            TorchDenoiser(method.denoiser(network)),
            scheduler,
            method.plan,
            seed=5,
            shape=method.noise.shape,
            indices=indices,
            steps=self.config.sampling_steps,
            distribution=method.noise.distribution,
        )
        return drawn


suite = Suite("method", MethodSubject)


@suite.check
def networks(subject: MethodSubject) -> str:
    """Networks of torch by name, ``drawing`` among them."""
    method = subject.method
    if not all(isinstance(network, nn.Module) for network in method.networks.values()):
        raise ViolationError(f"networks are {method.networks!r}", "modules of torch by name")
    if method.drawing not in method.networks:
        raise ViolationError(
            f"drawing is {method.drawing!r}", f"one of {', '.join(method.networks)}"
        )
    return f"{', '.join(method.networks)}; {method.drawing} draws"


@suite.check
def draws(subject: MethodSubject) -> str:
    """What is drawn for an image is a function of its stream, holds ``x_0``, and can be sent to the
    processes that read images."""
    pickle.dumps(subject.method.draws)
    first, again, other = subject.batch(), subject.batch(), subject.batch(BATCH)
    if "x_0" not in first or first["x_0"].shape != (BATCH, CHANNELS, *SIZE):
        raise ViolationError(f"it gives {sorted(first)}", f"x_0 of {(CHANNELS, *SIZE)} among them")
    for name, values in first.items():
        if not torch.equal(values, again[name]):
            raise ViolationError(f"{name!r} differs for one image", "a function of its stream")
    moved = [name for name in first if not torch.equal(first[name], other[name])]
    return f"{', '.join(sorted(first))}; of another image {', '.join(sorted(moved))} differ"


@suite.check
def updates(subject: MethodSubject) -> str:
    """Losses are (B,) and finite, and their gradients reach the network that moves; what an update
    tells has the same names every time."""
    method = subject.new()
    orders = order_tensors(method.plan.draw(0), probes.CPU)
    found = list(method.updates(method.networks))
    unknown = [u.network for u in found if u.network not in method.networks]
    if not found or unknown:
        raise ViolationError(
            f"updates of {unknown or 'nothing'}", f"some of {', '.join(method.networks)}"
        )
    for update in found:
        for progress in (0.0, 1.0):
            told = dict(update.losses(subject.batch(), orders, progress))
            for name, values in told.items():
                if tuple(values.shape) != (BATCH,) or not values.isfinite().all():
                    raise ViolationError(
                        f"{name!r} is {tuple(values.shape)}", f"({BATCH},), finite"
                    )
        network = method.networks[update.network]
        network.zero_grad()
        told["loss"].sum().backward()
        if not any(p.grad is not None and p.grad.any() for p in network.parameters()):
            raise ViolationError(f"no gradient reaches {update.network!r}", "it is what moves")
    if method.drawing not in {update.network for update in found}:
        raise ViolationError(f"{method.drawing!r} never moves", "the network that draws is trained")
    return ", then ".join(update.network for update in found)


@suite.check
def seeded(subject: MethodSubject) -> str:
    """Networks and losses are functions of torch's seed and of the batch."""
    values = []
    for _ in range(2):
        method = subject.new()
        orders = order_tensors(method.plan.draw(0), probes.CPU)
        with probes.seeded(1):
            values.append(
                [
                    u.losses(subject.batch(), orders, 0.5)["loss"]
                    for u in method.updates(method.networks)
                ]
            )
    if not all(torch.equal(a, b) for a, b in zip(*values, strict=True)):
        raise ViolationError("two builds of one seed lose otherwise", "the same to the bit")
    return "the same to the bit"


@suite.check
def images(subject: MethodSubject) -> str:
    """Image i of a seed is finite, of the images' shape, and depends on no other image."""
    method = subject.new()
    whole = subject.images(method, [0, 1, 2])
    if tuple(whole.shape) != (3, CHANNELS, *SIZE) or not whole.isfinite().all():
        raise ViolationError(f"it draws {tuple(whole.shape)}", f"{(3, CHANNELS, *SIZE)}, finite")
    error = probes.relative(subject.images(method, [2]), whole[2:])
    if not error <= TOLERANCE:
        raise ViolationError(f"image 2 differs by {error:.1e} by itself", f"at most {TOLERANCE:g}")
    return "an image by its seed and index"


@suite.check
def looks(subject: MethodSubject) -> str:
    """A look after a step moves no random state and gives figures and doubts."""
    method = subject.new()
    orders = order_tensors(method.plan.draw(0), probes.CPU)
    figures: dict[str, float] = {}
    for update in method.updates(method.networks):
        told = update.losses(subject.batch(), orders, 0.5)
        figures |= {name: float(values.detach().mean()) for name, values in told.items()}
    before = torch.get_rng_state()
    drawn = copy.deepcopy(subject.batch()["x_0"])
    seen: Any = method.look(Look(1, figures, lambda n: drawn[:n], lambda n: drawn[:n]))
    if not isinstance(seen, Seen):
        raise ViolationError(f"a look gives {type(seen).__name__}", "an ssmdiff.Seen")
    if not torch.equal(before, torch.get_rng_state()):
        raise ViolationError("a look moves torch's generator", "it is left as it was")
    return f"{len(seen.figures)} figures, {len(seen.doubts)} doubts"
