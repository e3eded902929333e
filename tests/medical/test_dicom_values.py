"""Stored integers to what is looked at, against the standard computed here value by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import item, read, shown, windowed, write
from ssmdiff import ConfigError, DataError, create
from ssmdiff_medical.dicom import DicomReader

WORDS = np.arange(0, 4096, 17, "<u2")[:240].reshape(12, 20)


def test_slope_and_intercept_are_hounsfield_units(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ct", WORDS, Modality="CT", RescaleSlope="1.5", RescaleIntercept="-1024"
    )
    data = read(path)
    assert np.array_equal(data.values, np.float32(1.5) * WORDS - 1024)
    assert (data.header.units, data.header.modality, data.header.value_range) == ("HU", "CT", None)
    assert (data.values.dtype, data.header.depth) == (np.float32, "uint16")


@pytest.mark.parametrize("signed", [0, 1])
def test_12_of_16_bits_whatever_the_high_bits_hold(tmp_path: Path, signed: int) -> None:
    """Junk above the stored bits is cleared; a negative value is extended from bit 11."""
    expected = [0, 1, 2047, 2048, 4095, 100]
    expected = [v - 4096 if signed and v > 2047 else v for v in expected]
    words = np.array([v & 0xFFF | (i * 0x3000 & 0xF000) for i, v in enumerate(expected)], "<u2")
    path = write(tmp_path / "x", words.reshape(2, 3), bits=(16, 12), PixelRepresentation=signed)
    data = read(path)
    assert data.values.ravel().tolist() == expected
    assert data.header.depth == "12 of 16 bits" + ", signed" * signed


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048.0, 4096.0), (600.0, 401.0), (40.5, 2.0)])
def test_windows_to_the_letter(tmp_path: Path, function: str, centre: float, width: float) -> None:
    path = write(
        tmp_path / "x", WORDS, WindowCenter=str(centre), WindowWidth=str(width),
        VOILUTFunction=function, RescaleSlope="0.5", RescaleIntercept="-10",
    )  # fmt: skip
    expected = windowed(WORDS * 0.5 - 10, centre, width, function)
    assert np.abs(shown(read(path)) - expected).max() < 2e-6


def test_a_linear_window_one_wide_is_a_step(tmp_path: Path) -> None:
    words = np.arange(6, dtype="<u2").reshape(2, 3)
    path = write(tmp_path / "x", words, WindowCenter="3", WindowWidth="1")
    assert np.array_equal(shown(read(path)), words > 2)


def test_a_linear_window_leaves_real_units(tmp_path: Path) -> None:
    path = write(tmp_path / "x", WORDS, WindowCenter=["100", "500"], WindowWidth=["50", "200"],
                 WindowCenterWidthExplanation=["LUNG", "BONE"])  # fmt: skip
    data = read(path)
    assert np.array_equal(data.values, WORDS)
    assert data.header.value_range == (75.0, 124.0)  # 100 - 0.5 -+ 49 / 2
    assert read(path, window="bone").header.value_range == (400.0, 599.0)
    assert read(path, window=(40.0, 400.0)).header.value_range == (-160.0, 240.0)
    assert read(path, window="none").header.value_range is None
    with pytest.raises(DataError, match="no window 'bnoe'; did you mean 'bone'"):
        read(path, window="bnoe")
    with pytest.raises(ConfigError, match="width above 0"):
        create("reader", {"name": "dicom", "window": [40, 0]})


@pytest.mark.parametrize(("width", "function"), [("0.5", "LINEAR"), ("0", "LINEAR_EXACT")])
def test_a_window_without_width_is_refused(tmp_path: Path, width: str, function: str) -> None:
    path = write(
        tmp_path / "x", WORDS, WindowCenter="1", WindowWidth=width, VOILUTFunction=function
    )
    with pytest.raises(DataError, match=r"wide; expected (at least 1|more than 0)"):
        read(path)
    assert read(path, window="none").values.max() == WORDS.max()


def table(name: str, first: int, entries: list[int], bits: int):
    lut = item(LUTDescriptor=[len(entries), first, bits], LUTData=entries, LUTExplanation=name)
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    return [lut]


def test_a_voi_lut_comes_before_a_window(tmp_path: Path) -> None:
    """An 8-bit table of 1,000 entries, which is more than its own bits count."""
    entries = [i * 255 // 999 for i in range(1000)][::-1]
    path = write(tmp_path / "x", WORDS, VOILUTSequence=table("NORMAL", 500, entries, 8),
                 WindowCenter="100", WindowWidth="50")  # fmt: skip
    expected = [entries[min(max(int(v) - 500, 0), 999)] for v in WORDS.ravel()]
    data = read(path)
    assert data.values.ravel().tolist() == expected
    assert data.header.value_range == (0, 255)
    assert np.array_equal(read(path, window="normal").values, data.values)


def test_a_modality_lut_stands_for_slope_and_intercept(tmp_path: Path) -> None:
    entries = [(i * 37) % 3000 for i in range(512)]
    path = write(tmp_path / "x", WORDS, ModalityLUTSequence=table("OD", 100, entries, 16))
    expected = [entries[min(max(int(v) - 100, 0), 511)] for v in WORDS.ravel()]
    assert read(path).values.ravel().tolist() == expected


@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_monochrome1_is_inverted_once(tmp_path: Path, shape: str | None) -> None:
    """After the window; a presentation LUT shape that says it as well does not turn it back."""
    tags = {"PhotometricInterpretation": "MONOCHROME1"}
    tags |= {"PresentationLUTShape": shape} if shape else {}
    path = write(tmp_path / "x", WORDS, WindowCenter="1000", WindowWidth="1001", **tags)
    expected = 1 - windowed(WORDS, 1000, 1001, "LINEAR")
    assert np.abs(shown(read(path)) - expected).max() < 1e-6
    plain = read(path, window="none")
    assert np.array_equal(plain.values, 65535.0 - WORDS)


def test_monochrome1_of_12_bits_turns_about_12_bits(tmp_path: Path) -> None:
    path = write(tmp_path / "x", WORDS, bits=(16, 12), PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read(path).values, 4095.0 - WORDS)


def test_monochrome2_of_inverse_shape_is_inverted(tmp_path: Path) -> None:
    path = write(tmp_path / "x", WORDS.astype("u1"), bits=(8, 8), PresentationLUTShape="INVERSE")
    data = read(path)
    assert np.array_equal(data.values, 255.0 - WORDS.astype("u1"))
    assert data.header.value_range == (0, 255)


@pytest.mark.parametrize("limit", [None, -1998, -2002])
def test_padding_is_no_value_of_its_own(tmp_path: Path, limit: int | None) -> None:
    """Out of statistics: dark, and marked as not imaged. A range has its ends in either order."""
    words = np.array([[-2000, 5, 7], [-1999, 9, -2000]], "<i2")
    tags = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    tags |= {"PixelPaddingValue": -2000, "Modality": "CT"}
    path = write(tmp_path / "x", words, PixelRepresentation=1, RescaleSlope="1",
                 RescaleIntercept="-100", **tags)  # fmt: skip
    low, high = sorted((-2000, -2000 if limit is None else limit))
    inside = (words < low) | (words > high)
    data = read(path)
    assert np.array_equal(data.valid, inside)
    assert np.array_equal(data.values[inside], words[inside] - 100.0)
    assert set(data.values[~inside]) == {data.values[inside].min()}


def test_packed_bits(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).integers(0, 2, (8, 12))
    words = np.packbits(mask.ravel(), bitorder="little").reshape(1, -1)
    path = write(tmp_path / "x", words, bits=(1, 1), Rows=8, Columns=12)
    data = read(path)
    assert np.array_equal(data.values, mask)
    assert (data.header.depth, data.header.value_range) == ("bool", (0, 1))


def test_frames_of_an_enhanced_file_have_their_own_slope_and_place(tmp_path: Path) -> None:
    """Functional groups: per frame before shared; the frames lie in no order."""
    words = np.arange(3 * 4 * 5, dtype="<u2").reshape(3, 4, 5)
    heights, slopes = [6.0, 0.0, 3.0], ["2", "1", "0.5"]
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])],
            PixelValueTransformationSequence=[
                item(RescaleSlope=slope, RescaleIntercept="-5", RescaleType="HU")
            ],
        )
        for z, slope in zip(heights, slopes, strict=True)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75])],
        FrameVOILUTSequence=[item(WindowCenter="40", WindowWidth="400")],
    )
    path = write(tmp_path / "x", words, PerFrameFunctionalGroupsSequence=frames,
                 SharedFunctionalGroupsSequence=[shared])  # fmt: skip
    data = read(path)
    order = np.argsort(heights)
    expected = [words[i] * float(slopes[i]) - 5 for i in order]
    assert np.array_equal(data.values, np.stack(expected))
    header = data.header
    assert (header.axes, header.spacing, header.units) == ("zyx", (3.0, 0.5, 0.75), "HU")
    assert header.value_range == (-160.0, 239.0)


def test_colour_is_rgb_and_ybr_is_converted(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype("u1")
    tags = {"SamplesPerPixel": 3, "bits": (8, 8), "Rows": 4, "Columns": 6}
    path = write(tmp_path / "rgb", rgb.reshape(4, -1), PhotometricInterpretation="RGB",
                 PlanarConfiguration=0, **tags)  # fmt: skip
    data = read(path)
    assert np.array_equal(data.values, rgb)
    assert (data.header.axes, data.header.value_range) == ("yxc", (0, 255))
    planes = np.moveaxis(rgb, -1, 0).reshape(12, 6)
    path = write(tmp_path / "planar", planes, PhotometricInterpretation="RGB",
                 PlanarConfiguration=1, **tags)  # fmt: skip
    assert np.array_equal(read(path).values, rgb)
    path = write(tmp_path / "ybr", rgb.reshape(4, -1), PhotometricInterpretation="YBR_FULL",
                 PlanarConfiguration=0, **tags)  # fmt: skip
    y, cb, cr = (rgb[..., i].astype(float) - (0, 128, 128)[i] for i in range(3))
    expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    assert np.abs(read(path).values - np.clip(expected, 0, 255)).max() <= 1


def test_the_pixel_spacing_of_a_radiograph_is_the_detectors_unless_calibrated(tmp_path) -> None:
    tags = {"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.1, 0.1]}
    path = write(tmp_path / "x", WORDS, **tags)
    assert read(path).header.spacing == (0.2, 0.2)
    path = write(tmp_path / "y", WORDS, PixelSpacingCalibrationType="FIDUCIAL", **tags)
    assert read(path).header.spacing == (0.1, 0.1)


def test_a_file_without_preamble_and_file_meta(tmp_path: Path) -> None:
    """What a file without file meta is encoded in is told by its bytes."""
    whole = write(tmp_path / "x", WORDS, RescaleSlope="2", RescaleIntercept="1").read_bytes()
    start = whole.index(b"\x08\0\x16\0UI", 132)
    bare = tmp_path / "bare"
    bare.write_bytes(whole[start:])
    assert DicomReader().claims(bare, bare.read_bytes()[:4096])
    assert np.array_equal(read(bare).values, WORDS * 2.0 + 1)
