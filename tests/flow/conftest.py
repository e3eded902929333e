"""A small flow, trained for two steps once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ssmdiff
from small_flows import small


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """Pictures of losses are not what is tested here, and dear."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssmdiff_train.callbacks.draw_loss_curve", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder."""
    return ssmdiff.train(small(), tmp_path_factory.mktemp("flow") / "run").path
