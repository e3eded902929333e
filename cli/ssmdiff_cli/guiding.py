"""Guidance as flags, of ``sample``, ``translate`` and ``inpaint``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff.errors import ConfigError

if TYPE_CHECKING:
    from ssmdiff.diffusion.guidance import Guidance

Scale = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        help="eps = uncond + S (cond - uncond): 1 is none (default), 0 tells nothing.",
    ),
]
Rescale = Annotated[
    float | None,
    typer.Option(help="0 to 1: how far each prediction's spread is put back to what it was."),
]
Interval = Annotated[
    str | None,
    typer.Option(help="Where it leads, as shares of the steps, such as 0.2:0.8; all by default."),
]
Calls = Annotated[
    int | None,
    typer.Option(help="1: one call of twice the images (default); 2: two calls, for less memory."),
]
Negative = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="What to lead away from, instead of nothing: label=healthy."
    ),
]


def guidance_of(
    scale: float | None,
    rescale: float | None,
    interval: str | None,
    calls: int | None,
    negative: Mapping[str, Any],
) -> Guidance | None:
    """What the flags ask for; None where they ask for none.

    Raises:
        ConfigError: A number is out of range, or the others are given without a scale.
    """
    from ssmdiff.diffusion.guidance import Guidance

    given = {
        "--guidance-rescale": rescale,
        "--guidance-interval": interval,
        "--guidance-calls": calls,
        "--negative": negative or None,
    }
    if scale is None:
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise ConfigError(f"{extra[0]} was given without --guidance, which says how strongly")
        return None
    return Guidance(
        scale,
        0.0 if rescale is None else rescale,
        (0.0, 1.0) if interval is None else shares(interval),
        1 if calls is None else calls,
        negative,
    )


def shares(text: str) -> tuple[float, float]:
    """``0.2:0.8``.

    Raises:
        ConfigError: It is not of that form.
    """
    start, _, stop = text.partition(":")
    try:
        return float(start), float(stop)
    except ValueError:
        raise ConfigError(
            f"--guidance-interval {text!r}: expected two shares of the steps, such as 0.2:0.8"
        ) from None
