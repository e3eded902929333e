"""Kind 28: the check of a data set fails what is unsound, and shows by how much.

What resizing rounds off is allowed; the smallest fault of a level of 8 bits is not.
"""

from __future__ import annotations

import re

import pytest
import torch
from ssmdiff.testing import check

CODE = """
    import torch
    import ssmdiff

    class Shades(ssmdiff.ImageDataset):
        channels = 1
        class_names = ()

        def __init__(self, image_size, low: float = -1.0, high: float = 1.0):
            self.size, self.ends = tuple(image_size), (low, high)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            if not 0 <= index < 3:
                raise IndexError(index)
            image = torch.linspace(*self.ends, self.size[0] * self.size[1])
            return ssmdiff.ImageItem(image.reshape(1, *self.size), 0)

        def fingerprint(self):
            return "shades"

    @ssmdiff.hookimpl
    def ssmdiff_datasets():
        yield ssmdiff.Component("shades", Shades, "grey from one end to the other")
"""


@pytest.fixture
def shades(install, fresh_registry):
    install("ssmdiff-shades", CODE)


def failures(low: float, high: float) -> list[str]:
    report = check("dataset", {"name": "shades", "low": low, "high": high})
    return [str(finding) for finding in report.failures]


@pytest.mark.parametrize("beyond", [0.0, 1.2e-7, 3.6e-7, 2e-6, 9e-6])
@pytest.mark.parametrize("end", [-1, 1])
def test_what_float32_rounds_off_is_sound(shades, beyond: float, end: int) -> None:
    low, high = (-1 - beyond, 0.53) if end < 0 else (-0.2, 1 + beyond)
    assert failures(low, high) == []


@pytest.mark.parametrize("beyond", [2e-5, 1 / 255, 0.1, 1e6])
@pytest.mark.parametrize("end", [-1, 1])
def test_a_fault_is_shown_in_digits_that_tell_it_from_sound(
    shades, beyond: float, end: int
) -> None:
    low, high = (-1 - beyond, 0.53) if end < 0 else (-0.2, 1 + beyond)
    told = failures(low, high)
    numbers = re.search(r"reaches from ([-\d.e+]+) to ([-\d.e+]+)", " ".join(told))
    assert numbers, told
    shown = float(numbers[1] if end < 0 else numbers[2])
    exact = float(torch.tensor(end * (1 + beyond), dtype=torch.float32))
    assert shown == pytest.approx(exact, rel=1e-8)
    assert f"{shown:.9g}" not in ("-1", "1")
