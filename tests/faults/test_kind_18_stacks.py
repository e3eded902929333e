"""Kind 18: a file of several planes is refused, with their number, however they are stored."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from ssmdiff.errors import DataError
from ssmdiff_data.folder import FolderDataset

PLANE = np.random.default_rng(0).integers(0, 255, (20, 24), np.uint8)


def page(dtype=np.uint8, byteorder="<", **tags):
    """One TIFF page by hand, as ImageJ writes it: header, directory, strings, pixels."""
    plane = PLANE.astype(np.dtype(dtype).newbyteorder(byteorder))
    sample = {"u": 1, "i": 2, "f": 3}[plane.dtype.kind]
    entries = [
        (256, 4, [24]), (257, 4, [20]), (258, 3, [plane.itemsize * 8]), (259, 3, [1]),
        (262, 3, [1]), (277, 3, [1]), (278, 4, [20]), (279, 4, [plane.nbytes]),
        (339, 3, [sample]),
    ]  # fmt: skip
    text = tags.pop("description", "").encode() + b"\0"
    extra = [(int(tag.removeprefix("tag")), 4, value) for tag, value in tags.items()]
    count = len(entries) + len(extra) + 2
    strings = 8 + 2 + 12 * count + 4
    longs = strings + len(text) + len(text) % 2
    pixels = longs + 4 * sum(len(values) for *_, values in extra)
    directory = []
    for tag, form, values in [*entries, (273, 4, [pixels]), *extra]:
        if len(values) == 1:
            code = {3: "H2x", 4: "I"}[form]
            directory.append((tag, form, 1, struct.pack(byteorder + code, values[0])))
        else:
            directory.append((tag, form, len(values), struct.pack(byteorder + "I", longs)))
    directory.append((270, 2, len(text), struct.pack(byteorder + "I", strings)))
    data = b"".join(
        struct.pack(byteorder + "HHI", tag, form, n) + value
        for tag, form, n, value in sorted(directory)
    )
    body = b"II*\0" if byteorder == "<" else b"MM\0*"
    body += struct.pack(byteorder + "I", 8) + struct.pack(byteorder + "H", count) + data
    body += struct.pack(byteorder + "I", 0) + text + bytes(len(text) % 2)
    body += b"".join(struct.pack(f"{byteorder}{len(v)}I", *v) for *_, v in extra if len(v) > 1)
    return body.ljust(pixels, b"\0") + plane.tobytes()


def reading(tmp_path, data, suffix="tif"):
    (tmp_path / f"a.{suffix}").write_bytes(data)
    return FolderDataset((20, 24), path=str(tmp_path), value_range=(0, 255), clip=True)


STACKS = {
    "imagej": ("ImageJ=1.53t\nimages=10\nslices=10\nloop=false\n", 10),
    "imagej-hyper": (
        "ImageJ=1.54f\nimages=24\nchannels=2\nslices=4\nframes=3\nhyperstack=true",
        24,
    ),
    "imagej-no-count": ("ImageJ=1.44\nslices=7\n", 7),
    "imagej-crlf": ("ImageJ=1.53t\r\nimages=3\r\nslices=3\r\n", 3),
    "tifffile": (json.dumps({"shape": [10, 20, 24]}), 10),
    "tifffile-4d": (json.dumps({"shape": [2, 5, 20, 24], "axes": "TZYX"}), 10),
    "tifffile-old": ("shape=(10, 20, 24)", 10),
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("form", [(np.uint8, "<"), (np.uint16, ">"), (np.float32, ">")])
def test_a_stack_in_one_page_is_refused_with_its_planes(tmp_path, name, form):
    text, planes = STACKS[name]
    data = page(*form, description=text)
    size = PLANE.size * np.dtype(form[0]).itemsize
    with pytest.raises(DataError, match=rf"a\.tif: a stack of {planes} planes"):
        reading(tmp_path, data + data[-size:] * (planes - 1))


def test_metamorph_and_sgi_say_it_in_tags(tmp_path):
    with pytest.raises(DataError, match="a stack of 5 planes"):
        reading(tmp_path, page(tag33629=[1, 2, 3, 4, 5]))
    with pytest.raises(DataError, match="a stack of 6 planes"):
        reading(tmp_path, page(tag32997=[6]))


@pytest.mark.parametrize(
    "text",
    [
        "", "ImageJ=1.53t\nimages=1\n", "ImageJ=1.53t\nunit=micron\n", "shape of things",
        json.dumps({"shape": [20, 24]}), json.dumps({"shape": [1, 1, 20, 24]}), '{"shape": "x"}',
        "{broken", json.dumps({"shape": [20, 24, 1]}), "[" * 5000, "{" * 5000,
    ],
)  # fmt: skip
def test_one_plane_is_read_whatever_is_written_beside_it(tmp_path, text):
    image = reading(tmp_path, page(description=text))[0].image
    np.testing.assert_allclose(((image[0] + 1) * 127.5).numpy(), PLANE, atol=1e-4)


def test_colour_of_three_samples_is_one_plane(tmp_path):
    colour = np.stack([PLANE, PLANE // 2, PLANE // 3], -1)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[270] = json.dumps({"shape": [20, 24, 3]})
    file = io.BytesIO()
    Image.fromarray(colour).save(file, "TIFF", tiffinfo=info)
    assert reading(tmp_path, file.getvalue())[0].image.shape == (3, 20, 24)


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
@pytest.mark.parametrize("count", [2, 5])
def test_pages_and_frames_are_counted(tmp_path, suffix, count):
    first, *more = (Image.fromarray(np.roll(PLANE, i, 0)).convert("RGB") for i in range(count))
    form = {"tif": "TIFF", "png": "PNG", "jpg": "MPO"}[suffix]
    file = io.BytesIO()
    first.save(file, form, save_all=True, append_images=more)
    with pytest.raises(DataError, match=rf"a\.{suffix}: it holds several.* {count} planes"):
        reading(tmp_path, file.getvalue(), suffix)


def test_a_file_of_many_pages_is_not_walked_to_its_end(tmp_path):
    """A page that comes next to itself never ends."""
    first = bytearray(page())
    at = 8 + 2 + 12 * struct.unpack("<H", first[8:10])[0]
    pages = b"".join(
        bytes(first[8:at]) + struct.pack("<I", len(first) + (i + 1) * (at - 4)) for i in range(2000)
    )
    first[at : at + 4] = struct.pack("<I", len(first))
    with pytest.raises(DataError, match="1000 or more planes"):
        reading(tmp_path, bytes(first) + pages)
