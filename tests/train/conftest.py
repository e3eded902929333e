"""A run that trains in seconds."""

import copy

import pytest
from other_runs import STILL, written
from ssmdiff.runs.config import merge, resolve
from tiny_config import TINY


@pytest.fixture
def tiny():
    """``tiny(train={"steps": 3})``: the small configuration with some keys changed."""

    def build(**changes):
        return resolve(merge(copy.deepcopy(TINY), changes))

    return build


@pytest.fixture
def old(tiny, tmp_path):
    """A run to begin with, and its tensors."""
    return str(tmp_path / "old"), written(tmp_path / "old", tiny(model=STILL))
