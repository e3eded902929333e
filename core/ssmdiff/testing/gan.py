"""What a pair of networks must do: images from z, one verdict an image, and gradients for both."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, size_text
from ssmdiff.runs.gans import Gan, verdicts_of
from ssmdiff.runs.method import Adam
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SIZES: tuple[Grid, ...] = ((16, 16), (32, 32), (16, 32), (33, 32), (7, 5))
BATCH, LATENT = 3, 24
TOLERANCE = 1e-4


class GanSubject(Subject):
    """A pair at the smallest size that it serves."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.refused: dict[Grid, Exception] = {}
        self.sizes = [size for size in SIZES if self.serves(size)]

    def serves(self, size: Grid) -> bool:
        try:
            self.new(1, size)
        except ConfigError:
            return False
        except Exception as error:  # told by 'refusals'
            self.refused[size] = error
            return False
        return True

    def new(self, channels: int, size: Grid) -> Gan:
        with probes.seeded(0):
            pair: Gan = self.build(channels=channels, image_size=size, latent_size=LATENT)
        return pair

    @functools.cached_property
    def pair(self) -> Gan:
        """Of two channels."""
        if not self.sizes:
            raise NotApplicableError("no size is served; see 'sizes'")
        return self.new(2, self.sizes[0])

    def z(self, batch: int = BATCH) -> Tensor:
        return torch.randn(batch, LATENT, generator=torch.Generator().manual_seed(batch))


suite = Suite("gan", GanSubject)


@suite.check
def sizes(subject: GanSubject) -> str:
    """It serves some sizes and any number of channels: images of -1 to 1, a verdict for each."""
    if not subject.sizes:
        listed = ", ".join(map(size_text, SIZES))
        raise ViolationError(f"refuses all of {listed}", "at least one of these image sizes")
    for channels in (1, 2, 3):
        size = subject.sizes[0]
        pair = subject.new(channels, size)
        with torch.no_grad():
            images = pair.generator(subject.z())
            verdicts = verdicts_of(pair.discriminator(images))
        expected = (BATCH, channels, *size)
        if tuple(images.shape) != expected or not (images.abs() <= 1).all():
            raise ViolationError(
                f"images {tuple(images.shape)}, {float(images.min()):g} to {float(images.max()):g}",
                f"{expected}, -1 to 1",
            )
        for verdict in verdicts:
            if len(verdict) != BATCH or not verdict.isfinite().all():
                raise ViolationError(
                    f"verdicts of {tuple(verdict.shape)}", f"({BATCH}, ...), finite numbers"
                )
    return f"serves {', '.join(map(size_text, subject.sizes))}"


@suite.check
def refusals(subject: GanSubject) -> str:
    """A size that it cannot serve is a ConfigError."""
    for size, error in subject.refused.items():
        raise ViolationError(
            f"{size_text(size)} is a {type(error).__name__}: {error}", "an ssmdiff.ConfigError"
        )
    return f"{len(SIZES) - len(subject.sizes)} sizes"


@suite.check
def optimisers(subject: GanSubject) -> str:
    """``adam`` has an entry for either network."""
    found: Any = getattr(subject.pair, "adam", None)
    names = ("generator", "discriminator")
    if not isinstance(found, Mapping) or not all(isinstance(found.get(n), Adam) for n in names):
        raise ViolationError(
            f"adam is {found!r}", "an ssmdiff.Adam for generator and discriminator"
        )
    return ", ".join(f"{name} at {found[name].rate:g}" for name in names)


@suite.check
def each_alone(subject: GanSubject) -> str:
    """Out of training, the image of a z does not depend on the others."""
    generator = copy.deepcopy(subject.pair.generator).eval()
    with torch.no_grad():
        whole = generator(subject.z())
        each = torch.cat([generator(z[None]) for z in subject.z()])
    error = probes.relative(each, whole)
    if not error <= TOLERANCE:
        raise ViolationError(
            f"an image differs by {error:.1e} among others", f"at most {TOLERANCE:g}"
        )
    return "an image is a function of its z"


@suite.check
def latents(subject: GanSubject) -> str:
    """Every number of z matters."""
    z = subject.z().requires_grad_()
    generator = copy.deepcopy(subject.pair.generator)
    (slope,) = torch.autograd.grad(generator(z).square().sum(), z)
    idle = [i for i, s in enumerate(slope.abs().amax(0).tolist()) if not s > 0]
    if idle:
        raise ViolationError(f"the images do not depend on z[{idle[0]}]", "all of z is used")
    return f"all {LATENT} numbers"


@suite.check
def gradients(subject: GanSubject) -> str:
    """Every parameter gets a gradient by the losses of a step."""
    pair = subject.pair
    generator = probes.move_parameters(copy.deepcopy(pair.generator))
    discriminator = probes.move_parameters(copy.deepcopy(pair.discriminator))
    images = generator(subject.z())
    loss = sum(F.softplus(-v).mean() for v in verdicts_of(discriminator(images)))
    assert isinstance(loss, Tensor)
    loss.backward()
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        without = [n for n, p in network.named_parameters() if p.grad is None]
        if without:
            raise ViolationError(f"{name}: {without[0]!r} gets no gradient", "all of them do")
    return "every parameter of both"


@suite.check
def regularisation(subject: GanSubject) -> str:
    """What the discriminator loses besides is (B,), finite, a function of what it is given."""
    pair = copy.copy(subject.pair)
    discriminator = copy.deepcopy(pair.discriminator).eval()
    g = torch.Generator().manual_seed(2)
    real, fake = (torch.rand(BATCH, 2, *subject.sizes[0], generator=g) * 2 - 1 for _ in range(2))
    uniforms = torch.rand(BATCH, pair.uniforms, generator=g)

    calls: list[int] = []

    def discriminate(images: Tensor) -> Any:
        calls.append(len(images))
        return verdicts_of(discriminator(images))

    def call(progress: float, uniforms: Tensor = uniforms) -> Tensor:
        with torch.no_grad():
            verdicts = discriminate(real), discriminate(fake)
            calls.clear()
            return pair.regularisation(
                discriminate, _Softplus(), real, fake, verdicts, uniforms, progress
            )

    for progress in (0.0, 0.5, 1.0):
        found = call(progress)
        if tuple(found.shape) != (BATCH,) or not found.isfinite().all():
            raise ViolationError(f"{tuple(found.shape)} at {progress:g}", f"({BATCH},), finite")
        if not torch.equal(found, call(progress)):
            raise ViolationError("two calls give two values", "draws come from 'uniforms' alone")
        often = set()
        for value in (0.0, 0.5, 0.999):
            call(progress, torch.full_like(uniforms, value))
            often.add(len(calls))
        if len(often) > 1:
            raise ViolationError(
                f"the discriminator is called {' or '.join(map(str, sorted(often)))} times by what "
                "is drawn",
                "as often in every process, or they wait for each other for ever",
            )
    return f"from {pair.uniforms} numbers an image"


class _Softplus:
    """Binary cross entropy."""

    def real(self, verdict: Tensor) -> Tensor:
        return F.softplus(-verdict)

    def fake(self, verdict: Tensor) -> Tensor:
        return F.softplus(verdict)

    generator = real


@suite.check
def export(subject: GanSubject) -> str:
    """``torch.export`` gives a graph of the generator for any batch, with the same images."""
    generator: nn.Module = copy.deepcopy(subject.pair.generator).eval()
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(generator, (subject.z(2),), dynamic_shapes=dynamic).module()
        for batch in (1, 5):
            error = probes.relative(program(subject.z(batch)), generator(subject.z(batch)))
            if not error <= TOLERANCE:
                raise ViolationError(
                    f"the exported graph differs by {error:.1e}", f"at most {TOLERANCE:g}"
                )
    return "the exported graph agrees, for any batch"
