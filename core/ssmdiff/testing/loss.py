"""What an adversarial loss must do: one value for each verdict, that falls as the verdict mends."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ssmdiff.runs.gans import AdversarialLoss
from ssmdiff.testing.report import ViolationError
from ssmdiff.testing.suite import Subject, Suite

RISES = {"real": -1, "fake": 1, "generator": -1}
"""Whether a loss rises with the verdict: the discriminator wants real images above 0 and generated
ones below, the generator wants its own above."""
FAR = 30.0


class LossSubject(Subject):
    """A loss, of its three parts."""

    @functools.cached_property
    def loss(self) -> AdversarialLoss:
        loss: AdversarialLoss = self.build()
        return loss

    def of(self, part: str) -> Callable[[Tensor], Tensor]:
        part_of: Callable[[Tensor], Tensor] = getattr(self.loss, part)
        return part_of


suite = Suite("loss", LossSubject)


@suite.check
def shapes(subject: LossSubject) -> str:
    """Of verdicts of any shape, values of the same shape, finite also far from 0."""
    for shape in ((3, 1), (2, 1, 4, 4), (5,)):
        verdict = torch.linspace(-FAR, FAR, int(torch.tensor(shape).prod())).reshape(shape)
        for part in RISES:
            found = subject.of(part)(verdict)
            if found.shape != verdict.shape or not found.isfinite().all():
                raise ViolationError(
                    f"{part} of verdicts {shape} is {tuple(found.shape)}, finite: "
                    f"{bool(found.isfinite().all())}",
                    f"{shape}, finite",
                )
    return f"{', '.join(RISES)}: a value for each verdict"


@suite.check
def alone(subject: LossSubject) -> str:
    """The value of a verdict does not depend on the others."""
    verdict = torch.randn(6, 1, generator=torch.Generator().manual_seed(1))
    for part in RISES:
        whole = subject.of(part)(verdict)
        each = torch.cat([subject.of(part)(one[None]) for one in verdict])
        if not torch.allclose(whole, each):
            raise ViolationError(f"{part} of a verdict changes with its neighbours", "one value")
    return "a verdict by itself"


@suite.check
def directions(subject: LossSubject) -> str:
    """Gradients lead real verdicts up and generated ones down, the generator's the other way."""
    for part, sign in RISES.items():
        verdict = torch.linspace(-2, 2, 9).requires_grad_()
        (slope,) = torch.autograd.grad(subject.of(part)(verdict).sum(), verdict)
        if (slope * sign < 0).any() or not (slope * sign > 0).any():
            raise ViolationError(
                f"{part} has the slopes {slope.tolist()} at verdicts -2 to 2",
                "none of them below 0" if sign > 0 else "none of them above 0",
            )
    return "real up, fake down, the generator's up"
