"""Times of training: where on the way from an image, t = 0, to noise, t = 1, a network learns.

Esser et al., arXiv:2403.03206: the logit-normal density of section 3.1 and the shift of eq. 23,
t' = s t / (1 + (s - 1) t) with s = sqrt(m / n) for images of m pixels, where times were chosen for
images of n. A large image keeps more of itself under the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from ssmdiff import shifted_times

Density = Literal["uniform", "logit-normal"]
_LEAST = 2.0**-54  # below every draw but 0, of which the normal distribution has no quantile


@dataclass(frozen=True)
class Times:
    """How times are drawn.

    Args:
        density: ``uniform`` over 0 to 1, or ``logit-normal``: log(t / (1 - t)) is normal.
        mean: Of that normal distribution; above 0 favours noise.
        std: Its spread.
        shift: s, applied to what was drawn.
    """

    density: Density = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def at(self, share: float) -> float:
        """The quantile: the time that so large a share of all draws lies below."""
        if self.density == "logit-normal":
            normal = NormalDist(self.mean, self.std).inv_cdf(max(share, _LEAST))
            share = 1 / (1 + math.exp(-normal))
        return float(shifted_times(share, self.shift))

    def __str__(self) -> str:
        drawn = f" with mean {self.mean:g} and spread {self.std:g}"
        drawn = drawn if self.density == "logit-normal" else ""
        return f"{self.density}{drawn}, shifted by {self.shift:.4g}"


def shift_of_size(image_size: Sequence[int], base_size: int) -> float:
    """s of images with these sides, where times are as they are for squares of ``base_size``."""
    return math.sqrt(math.prod(image_size) / base_size**2)
