"""A head in numbers, and what is made of it: its picture, and what lies in each pixel.

Every head is drawn from level sets: signed distances to smooth curves, turned into coverage over
about one pixel. So edges are anti-aliased, and image i is the same head at every size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

HEAD_LENGTH = 0.92
"""Half of it, before the head's scale."""
ANGLE_DEG = (-15.0, 15.0)
SCALE = (0.86, 1.0)


class Tissue(IntEnum):
    """What a pixel of a head may show, in the order of the numbers of a mask."""

    OUTSIDE = 0
    SCALP = 1
    SKULL = 2
    FLUID = 3
    GREY_MATTER = 4
    WHITE_MATTER = 5
    LESION = 6


class Waves(NamedTuple):
    """A smooth random field: a sum of n plane waves of about one wavelength, of variance 1."""

    kx: Array
    """(n,) angular frequency along x."""
    ky: Array
    phase: Array


class Lesion(NamedTuple):
    u: float
    v: float
    half_u: float
    half_v: float
    rim: float
    """Intensity of the outside."""
    core: float
    """Intensity of the middle."""
    outline: Waves


class Head(NamedTuple):
    """Everything that tells one phantom from another; lengths as in ``PhantomDataset``."""

    angle: float
    """Radians, clockwise on the screen."""
    shift: tuple[float, float]
    """Along x and y, in image units."""
    scale: float
    half_width: float
    egg: float
    scalp: tuple[float, float]
    """Thickness, intensity; likewise for the skull."""
    skull: tuple[float, float]
    marrow: float
    fluid: tuple[float, float]
    grey: float
    white: float
    cortex: float
    sulci: Waves
    sulcus_depth: float
    sulcus_width: float
    ventricle: tuple[float, float]
    """Half width, half length."""
    ventricle_v: float
    ventricle_bend: float
    ventricle_splay: float
    ventricle_asymmetry: float
    nuclei: tuple[float, float]
    """Half width, half length of the deep grey nuclei."""
    bias: tuple[float, float, float]
    """Slopes along x and y, and bow."""
    lesion: Lesion | None


def draw_head(rng: np.random.Generator, *, lesion: bool) -> Head:
    """The parameters of one head, from the ranges that ``PhantomDataset`` lists."""
    draw = rng.uniform
    grey = draw(0.40, 0.50)
    length = draw(0.20, 0.36)
    tilt, strength = draw(-math.pi, math.pi), draw(0.04, 0.18)
    half_width = draw(0.70, 0.82)
    return Head(
        angle=math.radians(draw(*ANGLE_DEG)),
        shift=(draw(-0.04, 0.04), draw(-0.04, 0.04)),
        scale=draw(*SCALE),
        half_width=half_width,
        egg=draw(0.0, 0.12),
        scalp=(draw(0.05, 0.09), draw(0.75, 1.0)),
        skull=(draw(0.05, 0.08), draw(0.04, 0.14)),
        marrow=draw(0.25, 0.55),
        fluid=(draw(0.01, 0.05), draw(0.10, 0.22)),
        grey=grey,
        white=grey + draw(0.18, 0.28),
        cortex=draw(0.05, 0.075),
        sulci=_draw_waves(rng, 12, draw(0.30, 0.45)),
        sulcus_depth=draw(0.25, 0.45),
        sulcus_width=draw(0.006, 0.016),
        ventricle=(length * draw(0.25, 0.31), length),
        ventricle_v=draw(-0.08, 0.06),
        ventricle_bend=draw(0.5, 1.3),
        ventricle_splay=draw(-0.25, 0.25),
        ventricle_asymmetry=draw(-0.15, 0.15),
        nuclei=(draw(0.06, 0.10), draw(0.12, 0.18)),
        bias=(strength * math.cos(tilt), strength * math.sin(tilt), draw(-0.1, 0.1)),
        lesion=_draw_lesion(rng, half_width) if lesion else None,
    )


def _draw_waves(rng: np.random.Generator, count: int, wavelength: float) -> Waves:
    """``count`` waves in directions spread over the half circle, wavelengths within 15%."""
    angle = (np.arange(count) + rng.random(count)) * (np.pi / count)
    k = 2 * np.pi / (wavelength * rng.uniform(0.85, 1.15, count))
    phase = rng.uniform(0, 2 * np.pi, count)
    kx, ky = k * np.cos(angle), k * np.sin(angle)
    return Waves(kx.astype(np.float32), ky.astype(np.float32), phase.astype(np.float32))


def _draw_lesion(rng: np.random.Generator, half_width: float) -> Lesion:
    draw = rng.uniform
    angle, reach = draw(-math.pi, math.pi), math.sqrt(draw(0.05, 0.55))
    radius, stretch = draw(0.09, 0.22), draw(0.8, 1.25)
    bright, dark = draw(0.88, 1.0), draw(0.12, 0.24)
    rim, core = ((bright, bright), (dark, dark), (bright, dark))[rng.integers(3)]
    return Lesion(
        u=reach * math.cos(angle) * (half_width - 0.2),
        v=reach * math.sin(angle) * (HEAD_LENGTH - 0.2),
        half_u=radius * stretch,
        half_v=radius / stretch,
        rim=rim,
        core=core,
        outline=_draw_waves(rng, 6, 2.2 * radius),
    )


class Coat(NamedTuple):
    """A coat of paint: what it stands for, the part of each pixel that it covers, its grey."""

    tissue: Tissue
    coverage: Array
    intensity: float


def render(head: Head, image_size: tuple[int, int]) -> Array:
    """(H, W) float32 in -1 to 1: the head, painted from the outside in."""
    x, y = _axes(image_size)
    image = np.zeros(image_size, np.float32)
    for coat in _coats(head, x, y):
        image += coat.coverage * (np.float32(coat.intensity) - image)

    slope_x, slope_y, bow = head.bias
    image *= 1 + (slope_x * x + (slope_y * y - bow * y * y)[:, None] - bow * x * x)
    np.clip(image, 0, 1, out=image)
    image *= 2
    image -= 1
    return image


def tissues(head: Head, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) numbers of :class:`Tissue`: of what there is most in each pixel of the picture."""
    x, y = _axes(image_size)
    parts = np.zeros((len(Tissue), *image_size), np.float32)
    parts[Tissue.OUTSIDE] = 1
    for coat in _coats(head, x, y):
        parts *= 1 - coat.coverage
        parts[coat.tissue] += coat.coverage
    found: NDArray[np.uint8] = parts.argmax(0).astype(np.uint8)
    return found


def _axes(image_size: tuple[int, int]) -> tuple[Array, Array]:
    """(W,) and (H,): x and y of the pixels, in units of half the shorter side."""
    height, width = image_size
    half_side = min(height, width) / 2
    y = ((np.arange(height) + 0.5) / half_side - height / (2 * half_side)).astype(np.float32)
    x = ((np.arange(width) + 0.5) / half_side - width / (2 * half_side)).astype(np.float32)
    return x, y


def _coats(head: Head, x: Array, y: Array) -> Iterator[Coat]:
    """All of them, from the outside in."""
    u, v = _head_frame(head, x, y)
    half_side = min(len(x), len(y)) / 2
    px = np.float32(1 / (half_side * head.scale))
    outside = _ellipse(u, v, head.half_width * (1 + head.egg * v), HEAD_LENGTH)
    bone = outside + np.float32(head.scalp[0])
    half = np.float32(head.skull[0] / 2)
    inner = bone + 2 * half
    brain = inner + np.float32(head.fluid[0])
    yield Coat(Tissue.SCALP, _coverage(outside, px), head.scalp[1])
    yield Coat(Tissue.SKULL, _coverage(bone, px), head.skull[1])
    yield Coat(Tissue.SKULL, _line(np.abs(bone + half), half / 2, px), head.marrow)
    yield Coat(Tissue.FLUID, _coverage(inner, px), head.fluid[1])
    yield from _brain_coats(head, u, v, brain, _field(head.sulci, x, y), px)
    if head.lesion is not None:
        outline = _field(head.lesion.outline, x, y)[0]
        yield from _lesion_coats(head.lesion, u, v, brain, outline, px)


def _head_frame(head: Head, x: Array, y: Array) -> tuple[Array, Array]:
    """(H, W) coordinates u, v of every pixel in the frame of the head."""
    x, y = x - np.float32(head.shift[0]), (y - np.float32(head.shift[1]))[:, None]
    cos = np.float32(math.cos(head.angle) / head.scale)
    sin = np.float32(math.sin(head.angle) / head.scale)
    return cos * x + sin * y, cos * y - sin * x


def _field(waves: Waves, x: Array, y: Array) -> tuple[Array, Array]:
    """(H, W) values of the field, and its distance to the nearest zero line (first order).

    cos(kx x + ky y + phase) is a sum of products of one function of x and one of y, so the whole
    field is one matrix product of (H, 2n) and (2n, W).
    """
    amplitude = np.float32(np.sqrt(2 / len(waves.kx)))
    phase_x, phase_y = np.outer(waves.kx, x), np.outer(y, waves.ky) + waves.phase
    in_x = np.concatenate([np.cos(phase_x), np.sin(phase_x)])
    cos_y, sin_y = amplitude * np.cos(phase_y), amplitude * np.sin(phase_y)
    kx, ky = np.tile(waves.kx, 2), np.tile(waves.ky, 2)
    value = np.concatenate([cos_y, -sin_y], axis=1) @ in_x
    slope = np.concatenate([-sin_y, -cos_y], axis=1)
    gradient = np.hypot((slope * kx) @ in_x, (slope * ky) @ in_x)
    typical = np.float32(np.hypot(waves.kx, waves.ky).mean())
    return value, np.abs(value) / np.maximum(gradient, typical / 4)


def _ellipse(u: Array, v: Array, half_u: Array | float, half_v: Array | float) -> Array:
    """Signed distance to an ellipse at the origin, negative inside, right to first order."""
    p, q = u / half_u, v / half_v
    radius = np.sqrt(p * p + q * q) + np.float32(1e-6)
    p, q = p / half_u, q / half_v
    distance: Array = (radius - 1) * radius / (np.sqrt(p * p + q * q) + np.float32(1e-6))
    return distance


def _coverage(distance: Array, px: np.float32) -> Array:
    """The fraction of a pixel that lies inside a straight edge at this signed distance."""
    covered: Array = np.clip(0.5 - distance / px, 0, 1)
    return covered


def _line(distance: Array, half_width: Array | np.float32, px: np.float32) -> Array:
    """The fraction of a pixel on a line at this unsigned distance: thin lines fade, not thicken."""
    return _coverage(distance - half_width, px) - _coverage(distance + half_width, px)


def _brain_coats(
    head: Head, u: Array, v: Array, brain: Array, field: tuple[Array, Array], px: np.float32
) -> Iterator[Coat]:
    fluid, cortex = head.fluid[1], np.float32(head.cortex)
    sulcus = field[1] / np.float32(head.scale)
    fade = np.clip(1 + brain / np.float32(head.sulcus_depth), 0, 1)
    fissure = np.maximum(np.abs(u), np.float32(0.42) - np.abs(v))
    beside = np.abs(u)

    yield Coat(Tissue.GREY_MATTER, _coverage(brain, px), head.grey)
    # Past the end of a sulcus its band of grey is less than nothing, so that no hairline is left.
    inside = np.maximum(brain + cortex, (cortex + px) * fade - px - sulcus)
    inside = np.maximum(inside, np.float32(0.7) * cortex - fissure)
    yield Coat(Tissue.WHITE_MATTER, _coverage(inside, px), head.white)

    nucleus = _ellipse(beside - np.float32(0.27), v - np.float32(0.06), *head.nuclei)
    yield Coat(Tissue.GREY_MATTER, _coverage(nucleus, 3 * px), head.grey + 0.04)

    in_brain = _coverage(brain, px)
    width = np.float32(head.sulcus_width)
    gaps = np.maximum(_line(sulcus, width * fade, px), _line(fissure, width, px))
    yield Coat(Tissue.FLUID, gaps * in_brain, fluid)

    back = v - np.float32(head.ventricle_v)
    axis = back * (head.ventricle_splay + head.ventricle_bend * back)
    size = 1 + np.float32(head.ventricle_asymmetry) * np.sign(u)
    half_width = head.ventricle[0] * size
    across = beside - half_width - np.float32(0.02) - axis
    ventricle = _ellipse(across, back, half_width, head.ventricle[1] * size)
    yield Coat(Tissue.FLUID, _coverage(ventricle, px), fluid)


def _lesion_coats(
    lesion: Lesion, u: Array, v: Array, brain: Array, outline: Array, px: np.float32
) -> Iterator[Coat]:
    radius = np.float32(min(lesion.half_u, lesion.half_v))
    centre_u, centre_v = np.float32(lesion.u), np.float32(lesion.v)
    edge = _ellipse(u - centre_u, v - centre_v, lesion.half_u, lesion.half_v)
    edge += np.float32(0.12) * radius * outline
    middle = np.maximum(edge + np.float32(0.4) * radius, brain)
    yield Coat(Tissue.LESION, _coverage(np.maximum(edge, brain), px), lesion.rim)
    yield Coat(Tissue.LESION, _coverage(middle, px), lesion.core)
