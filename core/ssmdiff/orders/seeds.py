"""Random streams by name: every draw of a run is a pure function of (seed, purpose, counters).

A stream is a numpy Generator over Philox, keyed by SeedSequence. It is the same on every platform
and device, costs microseconds to open, and can be opened where torch is not installed: a model
exported for ONNX Runtime draws the noise and the orders that the research code drew. So this module
needs numpy alone.
"""

from __future__ import annotations

import zlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ConfigError


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """The random stream of one purpose ("noise", "order", ...) at one place of a run.

    Args:
        seed: The run's seed, 0 <= seed < 2**63.
        purpose: What the numbers are for; streams of different purposes are independent.
        counters: Images seen, a step, a slot, ...; each from 0 to 2**63 - 1.

    Raises:
        ConfigError: The seed or a counter is out of range.
    """
    for name, number in (("seed", seed), *((f"counter of {purpose!r}", c) for c in counters)):
        if not 0 <= number < 2**63:
            raise ConfigError(f"{name} is {number}; expected a whole number from 0 to 2**63 - 1")
    # Two 32-bit words for every number, and how many there are: no two places share a key.
    words = [zlib.crc32(purpose.encode()), len(counters)]
    for number in (seed, *counters):
        words += [number & 0xFFFFFFFF, number >> 32]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def permutation(generator: np.random.Generator, length: int) -> NDArray[np.int64]:
    """A random permutation of 0 .. length - 1, (length,).

    By sorting the raw numbers of the bit generator, whose streams numpy keeps for ever; the draws
    of ``Generator.permutation`` may change between its versions, and trained models with them.
    """
    return np.argsort(generator.bit_generator.random_raw(length), kind="stable")


Distribution = Literal["normal", "uniform"]


class Noise(NamedTuple):
    """What an image is made from: independent numbers of mean 0, uniform over -1 to 1 or normal."""

    shape: tuple[int, ...]
    distribution: Distribution = "normal"

    def draw(self, draws: np.random.Generator) -> NDArray[np.float32]:
        """Float32 of the shape."""
        if self.distribution == "uniform":
            return 2 * draws.random(self.shape, dtype=np.float32) - 1
        return draws.standard_normal(self.shape, dtype=np.float32)


def first_noise(
    seed: int, index: int, shape: tuple[int, ...], distribution: Distribution = "normal"
) -> NDArray[np.float32]:
    """x_T of image ``index`` of a seed, float32 of the given shape (C, *image_size); of a model
    that makes an image in one call, its latent vector."""
    return Noise(shape, distribution).draw(stream(seed, "sample", index))


def step_noise(seed: int, index: int, step: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What a random sampler adds to image ``index`` in its ``step``-th step, counted from 0."""
    return stream(seed, "sample step", index, step).standard_normal(shape, dtype=np.float32)


def stream_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed from the same stream, for libraries that want a number."""
    return int(stream(seed, purpose, *counters).integers(2**63))
