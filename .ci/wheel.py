"""What the wheel does without extras: run by the Python of an environment that holds it alone.

    .venv-wheel/bin/python .ci/wheel.py RUN

RUN is a folder that ``ssmdiff train`` has left. Stops at the first thing that is not as it should
be, and says what it was.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

OF_EXTRAS = ("accelerate", "diffusers", "matplotlib", "numba", "onnx", "onnxruntime", "wandb")
SNAKE = """\
S>o>o>o
      v
o<o<o<o
v
o>o>o>E
"""
# What needs an extra, and what the sentence names.
REFUSED = [
    (["train", "--steps", "1", "--out", "run"], "ssmdiff[train]"),
    (["scans", "show", "snake", "--grid", "3x4", "--out", "snake.png"], "ssmdiff[train]"),
    (["export", "{run}", "--to", "onnx", "--out", "model.onnx"], "ssmdiff[onnx]"),
    (["sample", "{run}", "--kernel", "numba", "--out", "fast"], "ssmdiff[cpu]"),
]


def main(run: Path) -> None:
    if not run.is_dir():
        sys.exit(f"{run}: there is no such run; try: make demo DEMO={run}")
    run = run.resolve()
    with tempfile.TemporaryDirectory() as place:
        for check in (alone, listed, shown, built, sampled, refused):
            check(run, Path(place))
            print(f"the wheel without extras: {(check.__doc__ or '').strip()}", flush=True)


def shell(place: Path, *words: object, codes: tuple[int, ...] = (0,)) -> str:
    """What the command prints, both streams; it must exit with one of these codes."""
    command = [sys.executable, "-m", "ssmdiff_cli.main", *map(str, words)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    expect(done.returncode in codes, f"{words} exits with {done.returncode}, not {codes}", told)
    return told


def expect(holds: bool, sentence: str, details: object = "") -> None:
    if not holds:
        sys.exit(f"the wheel without extras: {sentence}\n{details}")


def alone(run: Path, place: Path) -> None:
    """installed, and no package of an extra beside it"""
    there = [name for name in OF_EXTRAS if importlib.util.find_spec(name)]
    expect(not there, f"this environment has packages of extras: {', '.join(there)}")
    found = Path(str(importlib.util.find_spec("ssmdiff").origin))  # type: ignore[union-attr]
    expect(Path(sys.prefix) in found.parents, f"ssmdiff is {found}, not in {sys.prefix}")


def listed(run: Path, place: Path) -> None:
    """plugins list names every plugin, and none is broken"""
    told = shell(place, "plugins", "list")
    points = importlib.metadata.entry_points(group="ssmdiff")
    expect(len(points) > 1, "there are no entry points", points)
    for point in points:
        expect(f"{point.name}  (ssmdiff " in told, f"{point.name} is not listed", told)
    expect("BROKEN" not in told, "a plugin is broken", told)


def shown(run: Path, place: Path) -> None:
    """scans show draws an order in letters"""
    told = shell(place, "scans", "show", "snake", "--grid", "3x4", "--ascii")
    expect(told.startswith(SNAKE), "another picture than expected", told)


def built(run: Path, place: Path) -> None:
    """a network is built, and run forwards and backwards"""
    import ssmdiff
    import torch

    ssmdiff.set_kernel("torch")
    small = {"name": "vmddpm", "channels": 8, "widths": [1], "layers": 1, "stem_stride": 1}
    config = ssmdiff.resolve({"data": {"image_size": 8}, "model": {"backbone": small}})
    model = ssmdiff.build_backbone(config, 1)
    orders = ssmdiff.order_tensors(ssmdiff.order_plan(model, config).draw(0), torch.device("cpu"))
    y = model(x=torch.randn(2, 1, 8, 8), timesteps=torch.tensor([3, 700]), orders=orders)
    (y - 1).square().mean().backward()
    expect(y.shape == (2, 1, 8, 8), "another shape than the images'", y.shape)
    finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    expect(finite, "a gradient is not finite")


def sampled(run: Path, place: Path) -> None:
    """a saved run is sampled, from the shell and from Python"""
    import ssmdiff

    words = ["sample", run, "--n", 2, "--steps", 2, "--format", "npy", "--kernel", "torch"]
    told = shell(place, *words, "--out", "drawn")
    expect((place / "drawn" / "000001.npy").is_file(), "the second image is missing", told)
    expect((place / "drawn" / "grid.png").is_file(), "the grid is missing", told)
    ssmdiff.set_kernel("torch")
    images = ssmdiff.load_run(run).sample(2, seed=0, steps=2)
    expect(bool(images.isfinite().all()) and len(images) == 2, "two images expected", images.shape)


def refused(run: Path, place: Path) -> None:
    """what needs an extra says which"""
    for words, extra in REFUSED:
        told = shell(place, *(word.format(run=run) for word in words), codes=(2, 3))
        expect(f"pip install '{extra}'" in told, f"{words} names no {extra}", told)
        expect("Traceback" not in told, f"{words} ends in a traceback", told)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
