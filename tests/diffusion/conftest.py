"""Data whose exact denoiser is known, and orders that change from step to step."""

from __future__ import annotations

import pytest
from gaussian import Gaussian
from ssmdiff.orders.scan import OrderPlan, ScanSlot
from ssmdiff.testing.probes import ProbeScan


@pytest.fixture
def gaussian():
    return Gaussian


@pytest.fixture
def plan():
    return OrderPlan(ProbeScan(), (ScanSlot((4, 4)),), seed=0)
