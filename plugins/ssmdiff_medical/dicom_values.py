"""From a DICOM file's stored integers to the values that are looked at.

    stored -> modality LUT, or slope and intercept -> VOI LUT or window -> inverse: black for white

A linear window is not cut into the values: they stay in real units, and the window's ends are the
header's ``value_range``. pydicom and its plug-ins decode the pixels, RLE without pylibjpeg-rle,
which panics on damaged files. What follows is ours: pydicom's tables of 8 bits overflow beyond 256
entries, and its windows leave real units.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless
from ssmdiff import DataError

from ssmdiff_medical.dicom_file import errors_named, opened, syntax_of
from ssmdiff_medical.dicom_header import PIXEL_TAGS, Frame, Head, Lut, Window

Look = Lut | Window | None

_LOSSLESS = "python-gdcm (BSD), or pylibjpeg-libjpeg (GPL-3.0)"
_OPENJPEG = "pylibjpeg-openjpeg (MIT), of ssmdiff[medical]"
_PLUG_INS = {
    "1.2.840.10008.1.2.4.50": "Pillow",
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg (GPL-3.0)",
    "1.2.840.10008.1.2.4.57": _LOSSLESS,
    "1.2.840.10008.1.2.4.70": _LOSSLESS,
    "1.2.840.10008.1.2.4.80": "pyjpegls, of ssmdiff[medical]",
    "1.2.840.10008.1.2.4.81": "pyjpegls, of ssmdiff[medical]",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), _OPENJPEG),
}
"""What decodes a transfer syntax that pydicom alone does not."""


def decodable(head: Head) -> None:
    """Check that something installed here decodes the file.

    Raises:
        DataError: Nothing does; names the transfer syntax and what to install.
    """
    name = head.syntax.name
    try:
        decoder = get_decoder(UID(head.syntax))
    except NotImplementedError:
        raise DataError(
            f"{head.path}: its pixels are in the transfer syntax {name}, which pydicom does not "
            "decode. Save it with another, such as Explicit VR Little Endian"
        ) from None
    twelve = head.syntax == "1.2.840.10008.1.2.4.51" and head.allocated > 8
    extended = "pylibjpeg" in decoder.available_plugins
    if not decoder.is_available or (twelve and not extended):
        raise DataError(
            f"{head.path}: its pixels are in the transfer syntax {name}"
            f"{f' with {head.stored} bits' if twelve else ''}, and pydicom has no decoder of it. "
            f"Try: pip install {_PLUG_INS.get(str(head.syntax), 'ssmdiff[medical]')}"
        )


def stored_frames(head: Head) -> NDArray[Any]:
    """The stored values: (frames, rows, columns[, 3]); unused bits cleared, colour as RGB.

    Raises:
        DataError: They are cut short, damaged, of another size than the header's, or nothing that
            is installed decodes them.
    """
    decodable(head)
    with (
        errors_named(head.path, "its pixels are cut short or damaged, or differ from its header"),
        opened(
            head.path, (*PIXEL_TAGS, "PixelData", "FloatPixelData", "DoubleFloatPixelData"), True
        ) as (dataset, _),
    ):
        dataset.file_meta.TransferSyntaxUID = syntax_of(dataset)
        if head.syntax.is_encapsulated:
            _check_codestreams(head, dataset)
        plug_in = "pydicom" if head.syntax == RLELossless else ""
        values = pixel_array(dataset, allow_excess_frames=False, decoding_plugin=plug_in)
        colours = (3,) if head.samples == 3 else ()
        shape = (len(head.frames), head.rows, head.columns, *colours)
        if values.size != np.prod(shape, dtype=object):
            raise DataError(f"its pixels are {values.shape}; its header says {shape}")
        return values.reshape(shape)


def _check_codestreams(head: Head, dataset: Dataset) -> None:
    """Hold the size that each compressed frame claims against the header's, before decoding it."""
    count = len(head.frames)
    for i, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=count)):
        if i == count:
            return
        size = _codestream_size(frame)
        if size is not None and size != (head.rows, head.columns):
            raise DataError(
                f"frame {i} holds a picture of {size[0]} x {size[1]} pixels, and the header says "
                f"{head.rows} x {head.columns}"
            )


def _codestream_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 says; None of anything else."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and len(data) >= start + 24:
        width, height, left, top = struct.unpack_from(">4I", data, start + 8)
        return height - top, width - left
    if data[:2] != b"\xff\xd8":
        return None
    for marker, place in _segments(data):
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, its place) of a JPEG up to its first scan."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0xDA:
            return
        yield marker, place
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]


def padded(stored: NDArray[Any], head: Head) -> NDArray[np.bool_] | None:
    """Where nothing was imaged: the padding value, or its range; None if nowhere."""
    if head.padding is None or head.samples != 1 or head.floats:
        return None
    low, high = (_as_stored(value, head) for value in head.padding)
    found = (stored >= min(low, high)) & (stored <= max(low, high))
    return found if found.any() else None


def _as_stored(value: int, head: Head) -> int:
    """A value of ``allocated`` bits as one of the ``stored`` bits."""
    value &= 2**head.stored - 1
    return value - 2**head.stored if head.signed and value >> (head.stored - 1) else value


def real_values(stored: NDArray[Any], head: Head, frame: Frame) -> NDArray[Any]:
    """The modality's transformation: float32, which holds 16 bits, or float64 for deeper values."""
    kind = np.float32 if head.stored <= 16 or (head.floats and head.allocated == 32) else np.float64
    if head.samples == 3:
        return stored.astype(kind)
    if frame.lut is not None:
        return looked_up(stored, frame.lut).astype(kind)
    if (frame.slope, frame.intercept) == (1.0, 0.0):
        return stored.astype(kind)
    values = stored * np.float64(frame.slope)
    values += frame.intercept
    return values.astype(kind)


def looked_up(values: NDArray[Any], lut: Lut) -> NDArray[np.uint16]:
    """Each value by a table; those outside of it by its ends."""
    place = np.rint(values).astype(np.int64) - lut.first
    table = np.asarray(lut.data, np.uint16)
    found: NDArray[np.uint16] = table[np.clip(place, 0, len(table) - 1)]
    return found


def stored_range(head: Head, frame: Frame) -> tuple[float, float]:
    """The least and the largest real value that the stored bits can say."""
    if frame.lut is not None:
        return float(min(frame.lut.data)), float(max(frame.lut.data))
    low = -(2 ** (head.stored - 1)) if head.signed else 0
    ends = [v * frame.slope + frame.intercept for v in (low, low + 2**head.stored - 1)]
    return min(ends), max(ends)


def chosen_look(frames: tuple[Frame, ...], window: str | tuple[float, float]) -> tuple[Look, str]:
    """The window or table to look through, one for all frames; and a doubt about it.

    Args:
        frames: Of a file or a whole series.
        window: ``file``: the first that the file has; ``none``; one of its by name; or (centre,
            width).

    Raises:
        DataError: No frame has a window of that name, or its width cannot be used.
    """
    if not isinstance(window, str):
        return _checked(Window(float(window[0]), float(window[1]), "LINEAR_EXACT")), ""
    if window == "none" or (window == "file" and not frames[0].looks):
        return None, ""
    named = [
        next((look for look in frame.looks if _is_named(look, window)), None) for frame in frames
    ]
    if named[0] is None:
        names = list(dict.fromkeys(look.name for look in frames[0].looks if look.name))
        near = get_close_matches(window.lower(), [name.lower() for name in names], 1)
        known = f"its windows: {', '.join(names) or 'unnamed'}"
        hint = f"did you mean {near[0]!r}?" if near else known
        raise DataError(f"there is no window {window!r}; {hint}")
    if any(look != named[0] for look in named):
        count = len(set(named))
        return None, f"its slices state {count} different windows, so none of them is used"
    return _checked(named[0]), ""


def _is_named(look: Lut | Window, window: str) -> bool:
    return window == "file" or look.name.strip().lower() == window.strip().lower()


def _checked(look: Look) -> Look:
    if isinstance(look, Window):
        known = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
        if look.function not in known:
            raise DataError(f"a window of function {look.function!r}; expected {', '.join(known)}")
        linear = look.function == "LINEAR"
        if look.width < 1 if linear else not look.width > 0:
            raise DataError(
                f"a {look.function} window {look.width:g} wide; expected "
                f"{'at least 1' if linear else 'more than 0'}. Give the option window: none, or "
                "[centre, width]"
            )
    return look


def look_range(look: Look) -> tuple[float, float] | None:
    """The values of black and white that a window or table leads to."""
    if look is None:
        return None
    if isinstance(look, Lut):
        return 0.0, float(2**look.bits - 1)
    if look.function == "SIGMOID" or (look.function == "LINEAR" and look.width == 1):
        return 0.0, 1.0
    if look.function == "LINEAR":
        middle, half = look.centre - 0.5, (look.width - 1) / 2
    else:
        middle, half = look.centre, look.width / 2
    return middle - half, middle + half


def looked_at(values: NDArray[Any], look: Look) -> NDArray[Any]:
    """What is not linear in the values: a table, a sigmoid, a step. PS3.3 C.11.2.1.2 and 3."""
    if isinstance(look, Lut):
        return looked_up(values, look).astype(values.dtype)
    if isinstance(look, Window) and look.function == "SIGMOID":
        slope = np.clip(-4 * (values.astype(np.float64) - look.centre) / look.width, -700, 700)
        return (1 / (1 + np.exp(slope))).astype(values.dtype)
    if isinstance(look, Window) and look.function == "LINEAR" and look.width == 1:
        return (values > look.centre - 0.5).astype(values.dtype)
    return values
