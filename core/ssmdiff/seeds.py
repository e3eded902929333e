"""Random streams by name: every draw of a run is a pure function of (seed, purpose, counters).

A stream is a numpy Generator over Philox, keyed by SeedSequence. It is the same on every platform
and device, costs microseconds to open, and can be opened where torch is not installed: a model
exported for ONNX Runtime draws the noise and the orders that the research code drew.
"""

from __future__ import annotations

import zlib
from typing import Annotated

import numpy as np
from pydantic import Field

from ssmdiff.errors import ConfigError

Seed = Annotated[int, Field(ge=0, lt=2**63, description="0 up to 2**63 - 1")]


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """The random stream of one purpose ("noise", "order", ...) at one place of a run.

    Args:
        seed: The run's seed, 0 <= seed < 2**63.
        purpose: What the numbers are for; streams of different purposes are independent.
        counters: Non-negative integers: images seen, a step, a slot, ...

    Raises:
        ConfigError: The seed is out of range.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed is {seed}; expected a whole number from 0 to 2**63 - 1")
    key = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *counters])
    return np.random.Generator(np.random.Philox(key))


def stream_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed from the same stream, for libraries that want a number."""
    return int(stream(seed, purpose, *counters).integers(2**63))
