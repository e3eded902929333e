"""What the sampling loop is made of: a denoiser, a noise scheduler, the orders of its steps.

Arrays are numpy's or torch's, (B, C, *image_size); this room asks of them arithmetic and ``clip``
alone, so that an exported model is sampled where numpy is all there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ssmdiff.orders.scan import ScanOrder

Array = Any
"""A numpy array or a torch tensor, whichever the denoiser works on."""
Floats = NDArray[np.float64]


class Denoiser(Protocol):
    """Any callable on arrays: a torch module, an ONNX session, an engine, a function.

    One that works on other arrays than numpy's has a method ``asarray``, which the loop hands the
    noise, the timesteps and what is told: :class:`ssmdiff.TorchDenoiser` puts them on its device.
    """

    def __call__(
        self, x: Array, timesteps: Array, orders: Sequence[ScanOrder], /, *told: Array
    ) -> Array:
        """What the network predicts, in the shape of ``x``.

        Args:
            x: (B, C, *image_size) noisy images.
            timesteps: (B,) float32; between two whole ones where a scheduler walks on noise levels.
            orders: Of every S6 call of the network, in this step.
            told: What :meth:`ssmdiff.Conditions.encoded` gave: (B, M) numbers and (B, P,
                *image_size) planes, either, or nothing, as the model is told.
        """
        ...


class Mark(NamedTuple):
    """Where a walk may be entered, or gone back to."""

    call: int
    """The next call there; that after the last one at the end."""
    alpha: float
    sigma: float
    """The sample there is alpha x_0 + sigma e, with e standard normal; at the end 1 and 0."""


class NoiseScheduler(Protocol):
    """Turns a denoiser into images: where the network is called, and what is made of its answers.

    A factory is called as ``factory(betas=..., prediction_type=..., **options)`` with betas (T,)
    float64 and prediction_type ``epsilon``, ``sample`` or ``v_prediction``. One of a rectified flow
    says so by an attribute ``process``, and is called as ``factory(trained_shift=..., **options)``.
    Images are begun from and filled in with one that has a method ``marks() -> Sequence[Mark]``,
    after ``set_timesteps``: from any mark on its calls are done in order as from the first, and
    earlier ones are forgotten.
    """

    initial_scale: float
    """What the first noise is multiplied by."""
    random: bool
    """Whether :meth:`step` takes noise."""
    timesteps: Floats
    """At which the network is called, in the order of the calls, after ``set_timesteps``."""

    def set_timesteps(self, steps: int) -> None:
        """Begin a sampling run; what an earlier one left is forgotten.

        Raises:
            ConfigError: So many steps cannot be done.
        """
        ...

    def scaled(self, x: Array, i: int) -> Array:
        """What the network sees of ``x`` at call i: an x_t of the forward process."""
        ...

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        """The sample after call i, (B, C, *image_size); after the last one, the images.

        Args:
            output: What the network gave.
            i: Which call, from 0.
            x: The sample before it.
            noise: Standard normal, a function of (seed, image, i) alone; None unless ``random``.
        """
        ...


class Plan(Protocol):
    """The scan orders of every step: an :class:`ssmdiff.OrderPlan`, or that of an exported file."""

    def draw(self, step: int, seed: int, /) -> Sequence[ScanOrder]: ...
