"""Batch norms of an averaged generator: means and variances that are its own.

What training leaves behind in them are those of the weights of the last steps. The average lags
behind these, and its maps have others, so that its images would be greyer and flatter than it makes
them. BigGAN (Brock et al., arXiv:1809.11096) counts them anew likewise, as standing statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

IMAGES, BATCH = 256, 64


@torch.no_grad()
def stand(generator: nn.Module, latents: Tensor) -> None:
    """Count means and variances of every batch norm anew, from its images of these z.

    Args:
        generator: Otherwise as for drawing images; no parameter changes.
        latents: (N, Z), a multiple of 64 of them.
    """
    norms = [m for m in generator.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    generator.eval()
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    try:
        for part in latents.split(BATCH):
            generator(part)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
        generator.eval()
