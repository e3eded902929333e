"""What a training run tells its listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, as ``metrics.jsonl`` keeps it."""

    step: int
    images_seen: int
    loss: float
    learning_rate: float
    gradient_norm: float
    images_per_s: float
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the method tells besides, by name; keys of their own in ``metrics.jsonl``."""
