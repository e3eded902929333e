"""Every file of pydicom's wheel, of pydicom-data and of deid-data, which nobody here wrote.

Each is read, with the values that the library leads to, or refused in a sentence; the table is
docs/dicom-files.md. ``python tests/medical/test_dicom_published.py`` writes that page anew.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import AllTransferSyntaxes
from ssmdiff import DataError, Source
from ssmdiff_medical.dicom import DicomReader
from ssmdiff_medical.dicom_file import looks_like_dicom, opened, syntax_of

PAGE = Path(__file__).parents[2] / "docs" / "dicom-files.md"
PACKAGES = {
    "pydicom": "data/test_files", "data_store": "data", "deid_data": "data",
}  # fmt: skip
READER = DicomReader()


def files() -> dict[str, Path]:
    """By ``package/file``; those that are no DICOM by their content are left out."""
    found = {}
    for package, folder in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed: pip install -r requirements-dev.txt")
        root = Path(next(iter(spec.submodule_search_locations or ()))) / folder
        for path in sorted(root.rglob("*")):
            if path.is_file() and looks_like_dicom(path.read_bytes()[:4096]):
                found[f"{package}/{path.relative_to(root).as_posix()}"] = path
    return found


def syntax(path: Path) -> str:
    with opened(path, ("Rows",)) as (dataset, _):
        return syntax_of(dataset).name


def outcome(path: Path) -> tuple[str, bool]:
    """What the table says of a file, and whether it was read."""
    source = Source((path,), path.name)
    try:
        header = READER.header(source)
        data = READER.read(source)
    except DataError as error:
        return str(error).removeprefix(f"{path}: "), False
    assert data.values.shape == header.shape
    size = " x ".join(map(str, header.shape))
    return f"read: {size} ({header.axes}), {header.depth}", True


def page() -> str:
    rows, ways = [], {True: Counter(), False: Counter()}
    for name, path in files().items():
        said, done = outcome(path)
        rows.append((name, said, done))
        if done or "transfer syntax" in said:
            ways[done][syntax(path)] += 1
    unseen = sorted(
        uid.name for uid in AllTransferSyntaxes if uid.name not in {*ways[True], *ways[False]}
    )
    count = sum(done for *_, done in rows)
    lines = [
        "# DICOM files of others", "",
        f"Made by `tests/medical/test_dicom_published.py` from pydicom {pydicom.__version__}, "
        "pydicom-data and deid-data: every file of", "theirs that is DICOM by its content, opened "
        f"by itself. {count} are read, {len(rows) - count} refused with the sentence shown.", "",
        "## Transfer syntaxes", "", "| transfer syntax | read | refused for want of a decoder |",
        "|---|---|---|",
    ]  # fmt: skip
    for word in sorted({*ways[True], *ways[False]}):
        lines.append(f"| {word} | {ways[True][word]} | {ways[False][word]} |")
    lines += ["", f"No file was seen of: {'; '.join(unseen)}.", "", "## Files", "",
              "| file | what comes of it |", "|---|---|"]  # fmt: skip
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, said, _ in rows:
        grouped.setdefault((name.rpartition("/")[0], said), []).append(name)
    for (_, said), names in grouped.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"| {', '.join(names[:3])}{more} | {said} |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_page_says_what_comes_of_every_file() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_values_are_the_librarys(caplog: pytest.LogCaptureFixture) -> None:
    """pydicom's own pixels and modality LUT; the first frame alone of what is long."""
    caplog.set_level(logging.CRITICAL, "pydicom")
    reader, compared = DicomReader(window="none"), 0
    for name, path in files().items():
        source = Source((path,), path.name)
        try:
            header = reader.header(source)
            if np.prod(header.shape) > 2e7:
                continue
            data = reader.read(source)
        except DataError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, force=True)
            expected = pixel_array(ds)
            if ds.SamplesPerPixel == 1:
                expected = apply_modality_lut(expected, ds).astype(np.float32)
            if ds.PhotometricInterpretation == "MONOCHROME1":
                expected = expected.min() + expected.max() - expected
                offset = float(data.values.flat[0]) - float(expected.flat[0])
                expected = expected + offset  # turned about the type's range, not the values'
        seen = np.ones(header.shape, bool) if data.valid is None else data.valid
        if "PerFrameFunctionalGroupsSequence" not in ds:
            same = np.abs(data.values[seen] - expected.reshape(header.shape)[seen])
            assert same.max() <= 1e-3 * ("RescaleSlope" in ds), name
            compared += 1
    assert compared > 90


FAMILIES = [
    ("MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_expb",
     "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_padded"),
    ("SC_rgb_rle", "SC_rgb", "SC_rgb_expb", "SC_rgb_dcmtk_+eb+cr:2", "SC_rgb_jpeg_dcmtk:6"),
    ("emri_small", "emri_small_RLE", "emri_small_big_endian", "emri_small_jpeg_2k_lossless",
     "emri_small_jpeg_ls_lossless"),
    ("RG3_UNCR", "RG3_J2KR"), ("RG1_UNCR", "RG1_J2KR"), ("MR2_UNCR", "MR2_J2KR"),
    ("US1_UNCR", "US1_J2KR"), ("693_UNCR", "693_J2KR"), ("US1_UNCI", "US1_J2KI:1"),
    ("RG3_UNCI", "RG3_J2KI"), ("MR2_UNCI", "MR2_J2KI:1"), ("color-pl", "color-px"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_compressed_files_hold_what_the_uncompressed_one_does(family: tuple[str, ...]) -> None:
    """To the bit, but for what is lossy: at most so many levels after the colon."""
    by_name = {path.stem: path for path in files().values()}
    first, *others = family
    expected = DicomReader(window="none").read(Source((by_name[first],), first)).values
    for other in others:
        name, _, levels = other.partition(":")
        values = DicomReader(window="none").read(Source((by_name[name],), name)).values
        assert np.abs(values - expected).max() <= int(levels or 0), name


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
@pytest.mark.parametrize("signed", [0, 1])
def test_what_an_encoder_here_writes_is_read_to_the_bit(tmp_path: Path, syntax, signed) -> None:
    from dicom_files import read, write

    words = np.random.default_rng(0).integers(-2000 * signed, 2000, (40, 32)).astype("<i2")
    path = write(tmp_path / "x", words, PixelRepresentation=signed, RescaleSlope="1",
                 RescaleIntercept="0")  # fmt: skip
    ds = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.compress(getattr(pydicom.uid, syntax))
    ds.save_as(path)
    assert np.array_equal(read(path).values, words)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
