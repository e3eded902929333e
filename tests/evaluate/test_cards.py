"""What an evaluation does where there are cards, seen without one: which card, and how often a
network is got ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from ssmdiff_cli import drawing
from ssmdiff_evaluate.features import features_of
from ssmdiff_evaluate.sets import DrawnImages


@pytest.mark.parametrize("opened", [ssmdiff.open_model, drawing._run])
@pytest.mark.parametrize(("rank", "card"), [("0", 0), ("1", 1), ("5", 1), (None, 1)])
def test_each_process_of_torchrun_draws_on_a_card_of_its_own(
    run: Path, monkeypatch: pytest.MonkeyPatch, opened: Any, rank: str | None, card: int
) -> None:
    """Of two cards, where the second is the current one; for ``evaluate`` all had the current."""
    current = [1]
    for name, stand_in in {
        "is_available": lambda: True,
        "current_accelerator": lambda check_available=False: torch.device("meta"),
        "device_count": lambda: 2,
        "current_device_index": lambda: current[-1],
        "set_device_index": current.append,
    }.items():
        monkeypatch.setattr(torch.accelerator, name, stand_in)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert opened(run).device.type == "meta"
    assert current[-1] == card


def test_a_network_is_got_ready_once_for_all_parts(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU its launches are recorded, which takes four calls and a wait for the device."""
    trained = ssmdiff.load_run(run)
    sampling = trained.sampling()
    made: list[None] = []
    plain = ssmdiff.Run.denoiser

    def counting(self: ssmdiff.Run) -> Any:
        made.append(None)
        return plain(self)

    monkeypatch.setattr(ssmdiff.Run, "denoiser", counting)
    drawn = DrawnImages(trained, sampling, 7, tmp_path, 2)
    shown: list[int] = []
    assert drawn.draw(on_images=shown.append) == 7
    assert len(made) == 1
    assert sum(shown) == 7
    whole = drawn.levels(range(7))
    for number in (1, 3):
        (part,) = drawn.folder.glob(f"part-00000{number}-*.npy")
        part.unlink()
    assert DrawnImages(trained, sampling, 7, tmp_path, 2).draw() == 2 + 1
    again = DrawnImages(trained, sampling, 7, tmp_path, 2)
    assert again.draw() == 0
    assert len(made) == 2
    assert np.array_equal(again.levels(range(7)), whole)


def test_features_are_of_float32_and_nothing_less(tmp_path: Path) -> None:
    """torch rounds what a GPU convolves to TF32 where nobody says otherwise."""
    seen = []

    class Network:
        def digest(self) -> str:
            return "0" * 64

        def __call__(self, levels: np.ndarray) -> np.ndarray:
            seen.append(torch.backends.cudnn.allow_tf32)
            return levels.reshape(len(levels), -1).astype(np.float32)

    class Images:
        def __len__(self) -> int:
            return 3

        def digest(self) -> str:
            return "1"

        def levels(self, indices: range) -> np.ndarray:
            return np.full((len(indices), 1, 2, 2), 7, np.uint8)

    before: Any = torch.backends.cudnn.allow_tf32
    assert before
    found = features_of(Images(), Network(), tmp_path)  # type: ignore[arg-type]
    assert seen == [False]
    assert found.tolist() == [[7.0] * 4] * 3
    assert torch.backends.cudnn.allow_tf32 is before
