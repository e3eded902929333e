"""Losses of a generator and its discriminator, of each verdict by itself.

D(x) is the verdict on an image, above 0 for real; G(z) a generated image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class CrossEntropy:
    """Binary cross entropy, non-saturating: the generator maximises log sigmoid D(G(z)).

    real: -log sigmoid D(x);  fake: -log(1 - sigmoid D(G(z)));  generator: -log sigmoid D(G(z))
    """

    def real(self, verdict: Tensor) -> Tensor:
        """softplus(-D)."""
        return F.softplus(-verdict)

    def fake(self, verdict: Tensor) -> Tensor:
        """softplus(D)."""
        return F.softplus(verdict)

    def generator(self, verdict: Tensor) -> Tensor:
        """softplus(-D)."""
        return F.softplus(-verdict)


class Hinge:
    """real: max(0, 1 - D(x));  fake: max(0, 1 + D(G(z)));  generator: -D(G(z))"""

    def real(self, verdict: Tensor) -> Tensor:
        """Nothing from a verdict of 1 on."""
        return F.relu(1 - verdict)

    def fake(self, verdict: Tensor) -> Tensor:
        """Nothing from a verdict of -1 down."""
        return F.relu(1 + verdict)

    def generator(self, verdict: Tensor) -> Tensor:
        """May be below 0."""
        return -verdict
