"""A batch on the CPU, in parts: which images each call gets, and that order is kept."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from ssmdiff_export.runtime.session import _Parts


class Doubling:
    """Stands for a session: notes its inputs, waits for the others, and doubles x."""

    def __init__(self, together: int) -> None:
        self.calls: list[dict[str, Any]] = []
        self.all_here = threading.Barrier(together)

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[np.ndarray]:
        self.calls.append(inputs)
        self.all_here.wait(timeout=20)
        return [2 * inputs["x"]]


@pytest.mark.parametrize(
    ("images", "most", "sizes"), [(5, 3, [1, 2, 2]), (2, 8, [1, 1]), (4, 1, [4])]
)
def test_images_go_to_calls_at_once_and_come_back_in_order(images, most, sizes) -> None:
    session = Doubling(len(sizes))
    x = np.arange(images * 4, dtype=np.float32).reshape(images, 1, 2, 2)
    order = np.zeros((images, 7), np.int32)  # as many directions as images
    inputs = {
        "x": x,
        "timesteps": np.arange(images),
        "context": np.arange(images),
        "order_0": order,
    }
    np.testing.assert_array_equal(_Parts(session, most).run(inputs), 2 * x)
    assert sorted(len(call["x"]) for call in session.calls) == sizes
    for call in session.calls:
        first = int(call["timesteps"][0])
        np.testing.assert_array_equal(call["x"], x[first : first + len(call["x"])])
        np.testing.assert_array_equal(call["context"], call["timesteps"])
        assert call["order_0"] is order
