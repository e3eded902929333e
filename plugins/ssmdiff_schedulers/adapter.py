"""Any noise scheduler of the diffusers library, for what ours lack.

Its faults are not mended: its DDIM goes T // steps timesteps back where the network is told another
distance, and drifts where it clips.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import schedulers
from numpy.typing import NDArray
from ssmdiff import ConfigError, did_you_mean, name_of

WIRED = ("num_train_timesteps", "trained_betas", "prediction_type")
"""What the process that was trained decides."""


class DiffusersScheduler:
    """A scheduler of the library over the process that was trained.

    The betas are handed over as numbers, and timesteps are spaced "trailing" unless an option says
    otherwise: the first is T - 1, where training saw pure noise.

    Args:
        betas: (T,) of the forward process.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.
        scheduler: A class of ``diffusers.schedulers``.
        options: Arguments of that class.

    Raises:
        ConfigError: There is no such class or option, or it takes no betas.
    """

    def __init__(
        self,
        betas: NDArray[np.float64],
        prediction_type: str,
        scheduler: str = "DPMSolverMultistepScheduler",
        options: dict[str, Any] | None = None,
    ) -> None:
        known = sorted(name for name in dir(schedulers) if name.endswith("Scheduler"))
        if scheduler not in known:
            raise ConfigError(
                f"diffusers has no scheduler {scheduler!r}; {did_you_mean(scheduler, known)}"
            )
        cls, options = getattr(schedulers, scheduler), options or {}
        if missing := getattr(cls, "_backends", []):
            raise ConfigError(f"{scheduler} of diffusers needs {' and '.join(missing)} installed")
        wired = dict(zip(WIRED, (len(betas), betas.tolist(), prediction_type), strict=True))
        taken = inspect.signature(cls).parameters.keys()
        if not wired.keys() <= taken:
            raise ConfigError(
                f"{scheduler} of diffusers takes no {' or no '.join(sorted(wired.keys() - taken))},"
                " so it cannot walk the process that was trained; choose another"
            )
        for key in options.keys() - (taken - wired.keys()):
            hint = did_you_mean(key, sorted(taken - wired.keys()))
            raise ConfigError(f"{scheduler} of diffusers has no option {key!r} to set; {hint}")
        spacing = {"timestep_spacing": "trailing"} if "timestep_spacing" in taken else {}
        with _of_the_library(f"{scheduler} of diffusers"):
            self.inner = cls(**{**spacing, **options, **wired})
        self.random = "generator" in inspect.signature(self.inner.step).parameters

    def set_timesteps(self, steps: int) -> None:
        """Begin a run; a ConfigError where the library refuses so many steps."""
        with _of_the_library(f"{type(self.inner).__name__}, {steps} steps"):
            self.inner.set_timesteps(steps)
        self.timesteps = self.inner.timesteps.double().numpy()
        self.initial_scale = float(self.inner.init_noise_sigma)

    def scaled(self, x: Any, i: int) -> Any:
        """What the network sees of x."""
        return _like(x, self.inner.scale_model_input(torch.as_tensor(x), self.inner.timesteps[i]))

    def step(self, output: Any, i: int, x: Any, noise: Any) -> Any:
        """The sample after call i.

        The library draws its own numbers, from a generator for each image; the noise seeds it.
        """
        options = {"generator": [_generator(one) for one in noise]} if self.random else {}
        with _of_the_library(f"{type(self.inner).__name__}, step {i + 1}"):
            result = self.inner.step(
                torch.as_tensor(output), self.inner.timesteps[i], torch.as_tensor(x), **options
            )
        return _like(x, result.prev_sample)


@contextmanager
def _of_the_library(where: str) -> Iterator[None]:
    """What the library raises at options that it cannot use, whatever that is, as a ConfigError."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f"{where}: {name_of(error)}. Try: other options, or fewer steps"
        ) from error


def _generator(noise: Any) -> torch.Generator:
    numbers = np.asarray(torch.as_tensor(noise).cpu()).tobytes()
    return torch.Generator().manual_seed(zlib.crc32(numbers))


def _like(x: Any, tensor: torch.Tensor) -> Any:
    """The tensor, or a numpy array where ``x`` is one; float32, as some schedulers widen it."""
    return tensor.float() if isinstance(x, torch.Tensor) else tensor.float().numpy()
