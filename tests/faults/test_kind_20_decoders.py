"""Kind 20: what a decoder says is called by its right name: damaged, unsupported, not permitted."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from ssmdiff.errors import DataError
from ssmdiff_data.folder import FolderDataset

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24), np.uint8)


def encoded(form="PNG", pixels=PIXELS, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(data, *chunks, place=33):
    """More chunks behind the header of a PNG, or at another place."""
    return data[:place] + b"".join(chunks) + data[place:]


def refusal(tmp_path, data, suffix="png"):
    (tmp_path / f"a.{suffix}").write_bytes(data)
    with pytest.raises(DataError) as refused:
        FolderDataset((20, 24), path=str(tmp_path))[0]
    assert f"a.{suffix}" in str(refused.value)
    return str(refused.value)


def read(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    image = FolderDataset((20, 24), path=str(tmp_path))[0].image
    return np.round((image[0].numpy() + 1) * 127.5).astype(np.uint8)


LARGE = bytes(3 * 2**20)
SOUND = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
    "tEXt": chunk(b"tEXt", b"Comment\0" + b"x" * 70 * 2**20),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LARGE)),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(LARGE)),
    "many": b"".join(chunk(b"tEXt", b"Comment\0" + b"x" * 2**20) for _ in range(70)),
}


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_large_text_or_profile_is_no_damage(tmp_path, kind, where):
    data = encoded()
    place = 33 if where == "before" else len(data) - 12
    np.testing.assert_array_equal(
        read(tmp_path, with_chunks(data, SOUND[kind], place=place)), PIXELS
    )


def test_the_orientation_survives_beside_a_large_text(tmp_path):
    exif = Image.Exif()
    exif[274] = 3  # upside down
    info = PngImagePlugin.PngInfo()
    data = with_chunks(encoded(exif=exif, pnginfo=info), SOUND["zTXt"])
    np.testing.assert_array_equal(read(tmp_path, data), PIXELS[::-1, ::-1])
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    noted = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    data = with_chunks(encoded(), noted, SOUND["iCCP"])
    np.testing.assert_array_equal(read(tmp_path, data), PIXELS[::-1, ::-1])


def test_damage_beside_a_large_text_is_still_found(tmp_path):
    data = with_chunks(encoded(), SOUND["zTXt"])
    assert "cut short or damaged" in refusal(tmp_path, data[:-60])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_file_cut_short_is_called_so(tmp_path, form):
    options = {"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}
    big = np.random.default_rng(1).integers(0, 255, (64, 64), np.uint8)
    data = encoded(form, big, **options)
    cut = data[: len(data) // 2]
    assert "cut short or damaged" in refusal(tmp_path, cut, {"TIFF": "tif"}.get(form, form.lower()))


def test_memory_that_a_file_claims_and_there_is_not_is_told_of_the_file(tmp_path, monkeypatch):
    """A chunk behind the pixels that claims 2 GB, where less is free."""

    def claims(self):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_end", claims)
    assert "it asks for more memory than there is" in refusal(tmp_path, encoded())


def test_a_mode_that_pillow_does_not_read_is_named(tmp_path):
    """A sound TIFF of 3 x 16 bits."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(file, "TIFF")
    data = file.getvalue()
    with Image.open(io.BytesIO(data)) as picture:
        bits = picture.tag_v2[258]
    assert bits == (8, 8, 8)
    message = refusal(
        tmp_path, data.replace(struct.pack("<3H", 8, 8, 8), struct.pack("<3H", 32, 32, 32)), "tif"
    )
    assert "32 bits" in message
    assert "Pillow does not read" in message
    assert "damaged" not in message


def test_a_compression_that_pillow_does_not_read_is_named(tmp_path):
    data = encoded("TIFF")
    entry = struct.pack("<HHI", 259, 3, 1)
    at = data.index(entry) + 8
    message = refusal(tmp_path, data[:at] + struct.pack("<H", 34712) + data[at + 2 :], "tif")
    assert "Pillow does not read" in message
    assert "damaged" not in message


def test_a_jpeg_of_12_bits_is_named(tmp_path):
    data = encoded("JPEG")
    at = data.index(b"\xff\xc0")
    message = refusal(tmp_path, data[: at + 4] + b"\x0c" + data[at + 5 :], "jpg")
    assert "a JPEG of 12 bits" in message
    assert "damaged" not in message


@pytest.mark.parametrize("form", ["WEBP", "BMP", "GIF"])
def test_another_kind_under_our_suffix_is_named(tmp_path, form):
    found = {"WEBP": "WebP"}.get(form, form)
    message = refusal(tmp_path, encoded(form))
    assert f"by its content it is {found}" in message
    assert "damaged" not in message


def test_what_the_system_refuses_is_no_damage(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded())
    plain = os.stat(tmp_path / "a.png")  # noqa: PTH116
    assert plain.st_size

    def denied(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(Permission denied\)") as refused:
        FolderDataset((20, 24), path=str(tmp_path))
    assert "damaged" not in str(refused.value)


def test_an_error_that_says_nothing_is_not_called_damage(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded())
    images = FolderDataset((20, 24), path=str(tmp_path))

    def odd(self):
        raise ValueError("a decoder's own trouble")

    monkeypatch.setattr(Image.Image, "load", odd)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", odd)
    with pytest.raises(DataError, match=r"a decoder's own trouble.*may be damaged, or sound"):
        images[0]
