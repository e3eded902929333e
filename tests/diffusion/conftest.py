"""Data whose exact denoiser is known, and orders that change from step to step."""

from __future__ import annotations

import pytest
import ssmdiff
from gaussian import Gaussian
from ssmdiff.orders.scan import OrderPlan, ScanSlot


@pytest.fixture
def gaussian():
    return Gaussian


@pytest.fixture
def plan():
    return OrderPlan(ssmdiff.create("scan", "regenerate"), (ScanSlot((4, 4)),), seed=0)
