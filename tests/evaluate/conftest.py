"""A run that was trained for a few steps, shared by the tests of evaluation.

Untrained runs stand with the tests of export.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import ssmdiff

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
SMALL = {"name": "phantom", "length": 96}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "heads"
    ssmdiff.train(
        {
            "data": {"dataset": SMALL, "image_size": 16},
            "model": {
                "backbone": {"name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1},
                "block": {"name": "conv"},
            },
            "train": {
                "steps": 4,
                "batch_size": 4,
                "sample_every": 0,
                "bound_images": 0,
                "callbacks": [],
            },
            "sample": {"steps": 2, "count": 1},
        },
        folder,
    )
    return folder
