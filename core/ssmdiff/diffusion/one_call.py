"""Images that are made in one call, as a GAN's generator makes them: a walk of one step."""

from __future__ import annotations

import numpy as np

from ssmdiff.diffusion.interfaces import Array, Floats
from ssmdiff.errors import ConfigError

STEPS = 1


class OneCall:
    """The ``NoiseScheduler`` of a network that turns noise into images by itself."""

    initial_scale = 1.0
    random = False

    def __init__(self) -> None:
        self.timesteps: Floats = np.zeros(STEPS)

    def set_timesteps(self, steps: int) -> None:
        """Nothing to set.

        Raises:
            ConfigError: More than one step.
        """
        if steps != STEPS:
            raise ConfigError(f"steps is {steps}; {NO_WALK}")

    def scaled(self, x: Array, i: int) -> Array:
        """The noise as it is."""
        return x

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        """The images as the network gave them."""
        return output


NO_WALK = "the model makes an image in one call, so it has neither sampling steps nor a scheduler"


def refuse_walk(scheduler: object, steps: int | None) -> None:
    """Check that nothing is asked of a walk where there is none.

    Raises:
        ConfigError: A scheduler is, or steps are.
    """
    asked = {"scheduler": scheduler, "steps": None if steps == STEPS else steps}
    given = [f"{name} = {value!r}" for name, value in asked.items() if value is not None]
    if given:
        raise ConfigError(f"{' and '.join(given)} was asked for; {NO_WALK}. Leave it out")
