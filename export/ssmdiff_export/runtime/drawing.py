"""Images of a model on numpy arrays, as a command: what ``python -m ssmdiff_export.runtime`` and
the client of a served model share. Needs numpy alone."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ssmdiff import ConfigError, ExportError, SsmdiffError

from ssmdiff_export.runtime.sampler import ArrayModel

TOLD_EVERY_S = 2.0


def arguments(parser: argparse.ArgumentParser, batch_size: int = 16) -> None:
    """What is asked of any model."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="The images: a new .npy, (n, C, H, W), -1 to 1.")
    add("--n", type=int, default=16, help="How many images.")
    add("--first", type=int, default=0, help="Number of the first; image i is one of (seed, i).")
    add("--seed", type=int, default=0)
    add("--steps", type=int, help="Sampling steps; by default the model's.")
    add("--scheduler", help="Noise scheduler; by default the model's.")
    add("--label", help="The class to draw; by default all in turn.")
    add(
        "--tell",
        action="append",
        default=[],
        help="NAME=VALUE of another condition: a number, "
        "names joined by +, none, or for a mask or an image a .npy file; may be given again.",
    )
    add("--guidance", type=float, help="uncond + S (cond - uncond): 1, none, by default.")
    add("--batch-size", type=int, default=batch_size, help="Images drawn at once.")


def draw(model: ArrayModel, asked: argparse.Namespace) -> str:
    """Draw what was asked for into the file, a batch at a time; a line for people.

    The file is there whole or not at all.

    Raises:
        SsmdiffError: An option does not fit the model, the file is there, or it cannot be written.
    """
    out: Path = asked.out
    if out.suffix != ".npy":
        raise ConfigError(f"--out {out}: expected a name that ends with .npy")
    if out.exists():
        raise ConfigError(f"{out} is there already; choose another --out")
    if asked.n < 1 or asked.first < 0 or asked.seed < 0:
        raise ConfigError("--n is at least 1, --first and --seed at least 0")
    sampling = model.sampling(
        asked.scheduler, asked.steps, asked.seed, asked.label, told(model, asked.tell)
    )
    sampling = model.guided(sampling, asked.guidance)
    numbers = range(asked.first, asked.first + asked.n)
    draft = out.with_name(f".tmp-{out.name}")
    start_s = time.perf_counter()
    try:
        images = np.lib.format.open_memmap(
            draft, mode="w+", dtype=np.float32, shape=(asked.n, *model.shape)
        )
        tell = _teller(model.calls(sampling) * -(-asked.n // max(1, asked.batch_size)))
        done = 0
        for batch, drawn in model.draw(sampling, numbers, asked.batch_size, tell):
            images[done : done + len(batch)] = drawn
            done += len(batch)
        images.flush()
        draft.replace(out)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    took_s = time.perf_counter() - start_s
    return f"images: {out}, {asked.n} of seed {asked.seed}, {asked.n / took_s:.2f} images a second"


def told(model: ArrayModel, words: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as values by name.

    Raises:
        ConfigError: It is no such text, or the model is told no such thing.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, given, text = word.partition("=")
        one = model.conditions.named(name)
        if not given or name in found:
            raise ConfigError(f"--tell {word}: expected NAME=VALUE, each name once")
        try:
            if text == "none":
                found[name] = None
            elif one.planes:
                found[name] = np.load(text, allow_pickle=False)
            else:
                found[name] = float(text) if one.kind == "number" else tuple(text.split("+"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--tell {word}: {error}; {one.expected()}") from None
        if one.kind == "label" and text != "none":
            found[name] = text
    return found


def run(work: Callable[[], str]) -> None:
    """Print what the work says; what goes wrong in one sentence, with ssmdiff's exit codes."""
    try:
        print(work())
    except SsmdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _teller(calls: int) -> Callable[[], None]:
    """Called after each call of the network; says every two seconds how far it is."""
    state = {"done": 0, "told": time.monotonic()}
    end = "\r" if sys.stderr.isatty() else os.linesep

    def tell() -> None:
        state["done"] += 1
        if time.monotonic() - state["told"] >= TOLD_EVERY_S:
            state["told"] = time.monotonic()
            print(f"call {state['done']} of {calls}", end=end, file=sys.stderr, flush=True)

    return tell
