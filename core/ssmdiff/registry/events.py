"""What a training run tells its listeners."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, as ``metrics.jsonl`` keeps it."""

    step: int
    images_seen: int
    loss: float
    learning_rate: float
    gradient_norm: float
    images_per_s: float
