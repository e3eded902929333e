"""Synthetic heads in axial T1-like contrast: a data set that needs no download.

Every head is drawn from level sets: signed distances to smooth curves, turned into coverage over
about one pixel. So edges are anti-aliased, and image i is the same head at every size.
"""

from __future__ import annotations

import hashlib
import math
import operator
from types import MappingProxyType
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import ConfigError, ImageItem, Seed, stream

Array = NDArray[np.float32]

_DRAWING = "phantom-1"
"""Part of the fingerprint: a change that moves any pixel gets a new name."""

_MIN_SIDE_PX = 4
HELD_OUT = 1024
_HEAD_LENGTH = 0.92


class PhantomDataset:
    """Axial slices through synthetic heads, half of them with a lesion.

    Lengths are in units of half the shorter image side, in a frame fixed to the head (before its
    scale), u to the right and v to the back. Intensities are fractions of full scale.

    ============ ================================================================================
    ingredient   what varies
    ============ ================================================================================
    pose         rotation -15 to 15 degrees, shift -0.04 to 0.04 on each axis, scale 0.86 to 1
    outline      an egg: half length 0.92, half width 0.70 to 0.82, wider at the back by up to 12%
    scalp        a bright ring (0.75 to 1), 0.05 to 0.09 thick
    skull        a dark ring (0.04 to 0.14) with marrow (0.25 to 0.55) in its middle, 0.05 to 0.08
    fluid        a dark ring (0.10 to 0.22) of 0.01 to 0.05; it also fills sulci and ventricles
    grey matter  0.40 to 0.50; cortex 0.05 to 0.075 thick, along the surface and along the sulci,
                 and two deep nuclei
    white matter grey matter plus 0.18 to 0.28
    sulci        the zero lines of a random field of wavelength 0.3 to 0.45, 0.25 to 0.45 deep, and
                 the fissure between the hemispheres, front and back
    ventricles   a pair of bent ellipses, 0.20 to 0.36 half long, 0.05 to 0.11 half wide, splayed
                 by -0.25 to 0.25, one side up to 15% larger
    lesion       in class ``lesion``: an irregular blob of radius 0.09 to 0.22 in the brain, bright
                 (0.88 to 1), dark (0.12 to 0.24), or a bright rim round a dark core
    bias field   a multiplicative tilt of 4% to 18% and bow of -10% to 10%
    ============ ================================================================================

    Image i is a pure function of (seed, i). Even indices are ``healthy``, odd ones ``lesion``.

    Args:
        image_size: (H, W), each at least 4; the head fits the shorter side.
        length: How many images there are.
        seed: Another seed gives other heads.

    Raises:
        ConfigError: ``image_size`` is not of that form.
    """

    channels = 1
    augmentation = MappingProxyType({"flip": True})
    class_names = ("healthy", "lesion")
    is_open = True
    """Nobody's head: they may be shown."""

    def __init__(
        self,
        image_size: tuple[int, ...],
        *,
        length: Annotated[int, Field(ge=1)] = 4096,
        seed: Seed = 0,
    ) -> None:
        if len(image_size) != 2 or min(image_size) < _MIN_SIDE_PX:
            raise ConfigError(
                f"data set 'phantom' was asked for image size {tuple(image_size)}; expected "
                f"(height, width), each at least {_MIN_SIDE_PX}"
            )
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.length = length
        self.seed = seed
        self._first = 0

    @property
    def held_out(self) -> PhantomDataset:
        """1,024 heads that training never sees: those that come after its own."""
        others = PhantomDataset(self.image_size, length=HELD_OUT, seed=self.seed)
        others._first = self._first + self.length
        return others

    @property
    def groups(self) -> tuple[str, ...]:
        """The patient of each image: every head is its own."""
        return tuple(str(self._first + i) for i in range(self.length))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> ImageItem:
        """Image ``index``: (1, H, W) float32 in -1 to 1, and 0 (healthy) or 1 (lesion).

        Raises:
            IndexError: ``index`` is not from 0 to length - 1.
        """
        index = operator.index(index)
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} phantoms")
        index += self._first
        label = index % 2
        head = draw_head(stream(self.seed, "phantom", index), lesion=label == 1)
        return ImageItem(torch.from_numpy(render(head, self.image_size)[None]), label)

    def fingerprint(self) -> str:
        """sha256, in hex, of the drawing's version and every option."""
        text = f"{_DRAWING} {self.image_size} {self.length} {self.seed}"
        if self._first:
            text += f" from {self._first}"
        return hashlib.sha256(text.encode()).hexdigest()


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
    """Everything that tells one phantom from another; lengths as in :class:`PhantomDataset`."""

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
    """The parameters of one head, from the ranges that :class:`PhantomDataset` lists."""
    draw = rng.uniform
    grey = draw(0.40, 0.50)
    length = draw(0.20, 0.36)
    tilt, strength = draw(-math.pi, math.pi), draw(0.04, 0.18)
    half_width = draw(0.70, 0.82)
    return Head(
        angle=math.radians(draw(-15, 15)),
        shift=(draw(-0.04, 0.04), draw(-0.04, 0.04)),
        scale=draw(0.86, 1.0),
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
        v=reach * math.sin(angle) * (_HEAD_LENGTH - 0.2),
        half_u=radius * stretch,
        half_v=radius / stretch,
        rim=rim,
        core=core,
        outline=_draw_waves(rng, 6, 2.2 * radius),
    )


def render(head: Head, image_size: tuple[int, int]) -> Array:
    """(H, W) float32 in -1 to 1: the head, painted from the outside in."""
    height, width = image_size
    half_side = min(height, width) / 2
    y = ((np.arange(height) + 0.5) / half_side - height / (2 * half_side)).astype(np.float32)
    x = ((np.arange(width) + 0.5) / half_side - width / (2 * half_side)).astype(np.float32)
    u, v = _head_frame(head, x, y)
    px = np.float32(1 / (half_side * head.scale))

    image = np.zeros(image_size, np.float32)
    outside = _ellipse(u, v, head.half_width * (1 + head.egg * v), _HEAD_LENGTH)
    brain = _paint_shell(image, head, outside, px)
    _paint_brain(image, head, u, v, brain, _field(head.sulci, x, y), px)
    if head.lesion is not None:
        _paint_lesion(image, head.lesion, u, v, brain, _field(head.lesion.outline, x, y)[0], px)

    slope_x, slope_y, bow = head.bias
    image *= 1 + (slope_x * x + (slope_y * y - bow * y * y)[:, None] - bow * x * x)
    np.clip(image, 0, 1, out=image)
    image *= 2
    image -= 1
    return image


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


def _paint(image: Array, coverage: Array, intensity: float) -> None:
    image += coverage * (np.float32(intensity) - image)


def _paint_shell(image: Array, head: Head, outside: Array, px: np.float32) -> Array:
    """Paint scalp, skull and fluid; the signed distance to the surface of the brain."""
    _paint(image, _coverage(outside, px), head.scalp[1])
    bone = outside + np.float32(head.scalp[0])
    _paint(image, _coverage(bone, px), head.skull[1])
    half = np.float32(head.skull[0] / 2)
    _paint(image, _line(np.abs(bone + half), half / 2, px), head.marrow)
    inner = bone + 2 * half
    _paint(image, _coverage(inner, px), head.fluid[1])
    return inner + np.float32(head.fluid[0])


def _paint_brain(
    image: Array,
    head: Head,
    u: Array,
    v: Array,
    brain: Array,
    field: tuple[Array, Array],
    px: np.float32,
) -> None:
    fluid, cortex = head.fluid[1], np.float32(head.cortex)
    sulcus = field[1] / np.float32(head.scale)
    fade = np.clip(1 + brain / np.float32(head.sulcus_depth), 0, 1)
    fissure = np.maximum(np.abs(u), np.float32(0.42) - np.abs(v))
    beside = np.abs(u)

    _paint(image, _coverage(brain, px), head.grey)
    # Past the end of a sulcus its band of grey is less than nothing, so that no hairline is left.
    inside = np.maximum(brain + cortex, (cortex + px) * fade - px - sulcus)
    inside = np.maximum(inside, np.float32(0.7) * cortex - fissure)
    _paint(image, _coverage(inside, px), head.white)

    nucleus = _ellipse(beside - np.float32(0.27), v - np.float32(0.06), *head.nuclei)
    _paint(image, _coverage(nucleus, 3 * px), head.grey + 0.04)

    in_brain = _coverage(brain, px)
    width = np.float32(head.sulcus_width)
    gaps = np.maximum(_line(sulcus, width * fade, px), _line(fissure, width, px))
    _paint(image, gaps * in_brain, fluid)

    back = v - np.float32(head.ventricle_v)
    axis = back * (head.ventricle_splay + head.ventricle_bend * back)
    size = 1 + np.float32(head.ventricle_asymmetry) * np.sign(u)
    half_width = head.ventricle[0] * size
    across = beside - half_width - np.float32(0.02) - axis
    ventricle = _ellipse(across, back, half_width, head.ventricle[1] * size)
    _paint(image, _coverage(ventricle, px), fluid)


def _paint_lesion(
    image: Array,
    lesion: Lesion,
    u: Array,
    v: Array,
    brain: Array,
    outline: Array,
    px: np.float32,
) -> None:
    radius = np.float32(min(lesion.half_u, lesion.half_v))
    centre_u, centre_v = np.float32(lesion.u), np.float32(lesion.v)
    edge = _ellipse(u - centre_u, v - centre_v, lesion.half_u, lesion.half_v)
    edge += np.float32(0.12) * radius * outline
    _paint(image, _coverage(np.maximum(edge, brain), px), lesion.rim)
    _paint(image, _coverage(np.maximum(edge + np.float32(0.4) * radius, brain), px), lesion.core)
