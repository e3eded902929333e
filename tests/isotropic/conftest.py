from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from ssmdiff.ops import use_kernel


@pytest.fixture(autouse=True)
def _reference_kernel() -> Iterator[None]:
    """The reference kernel: the shapes are small and nothing has to be compiled."""
    torch.manual_seed(0)
    with use_kernel("torch"):
        yield
