"""A small GAN, trained for two steps once."""

from __future__ import annotations

from pathlib import Path

import pytest
import ssmdiff
from small_gans import small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder."""
    return ssmdiff.train(small(), tmp_path_factory.mktemp("gan") / "run").path
