"""NIfTI against files packed by hand: values, orientation, and what no file may do."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from ssmdiff import DataError, ImageData, Source

pytest.importorskip("nibabel")

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
RNG = np.random.default_rng(0)


def nifti(
    stored: np.ndarray,
    affine: np.ndarray | None = None,
    slope: float = 0.0,
    inter: float = 0.0,
    order: str = "<",
    **changed: Any,
) -> bytes:
    """A NIfTI-1 file by the standard's table of offsets: ``stored`` is (x, y, z[, t])."""
    code = next(c for c, name in TYPES.items() if np.dtype(name) == stored.dtype)
    head = bytearray(352)

    def put(at: int, form: str, *numbers: Any) -> None:
        struct.pack_into(order + form, head, at, *numbers)

    put(0, "i", 348)
    put(40, "8h", stored.ndim, *stored.shape, *(1,) * (7 - stored.ndim))
    put(70, "h", code)
    put(72, "h", stored.dtype.itemsize * 8)
    put(76, "8f", 1, *changed.pop("pixdim", (2, 3, 4)), 0, 0, 0, 0)
    put(108, "f", 352)
    put(112, "2f", slope, inter)
    put(123, "B", changed.pop("units", 2))
    if affine is not None:
        put(254, "h", 1)
        put(280, "12f", *affine[:3].ravel())
    head[344:348] = b"n+1\0"
    for name, (at, form, numbers) in changed.items():
        assert name
        put(at, form, *numbers)
    body = stored.astype(stored.dtype.newbyteorder(order)).tobytes(order="F")
    return bytes(head) + body


def read(path: Path, data: bytes | None = None, **options: Any) -> ImageData:
    if data is not None:
        path.write_bytes(data)
    reader = ssmdiff.create("reader", "nifti", **options)
    (source,) = reader.sources(path.parent, iter([path]))
    assert isinstance(source, Source), source
    header = reader.header(source)
    found: ImageData = reader.read(source)
    assert found.header == header
    assert found.values.shape == header.shape
    return found


LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Indices that already lie as they come out: x to the left, y to the back, z to the head."""


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("slope", "inter"), [(0.0, 7.0), (1.0, 0.0), (0.37, -1024.5)])
def test_values_are_those_of_the_standard(
    tmp_path: Path, code: int, order: str, slope: float, inter: float
) -> None:
    dtype = np.dtype(TYPES[code])
    if dtype.kind == "f":
        stored = RNG.normal(size=(3, 4, 5)).astype(dtype) * 1000
    else:
        top = np.iinfo(dtype)
        stored = RNG.integers(top.min, top.max, (3, 4, 5), dtype=dtype, endpoint=True)
    data = nifti(stored, LPS, slope, inter, order)
    found = read(tmp_path / "a.nii", data)
    # By hand: each number unpacked where the standard says that it lies, x fastest.
    letter = {
        "u1": "B",
        "i1": "b",
        "i2": "h",
        "u2": "H",
        "i4": "i",
        "u4": "I",
        "f4": "f",
        "f8": "d",
    }
    numbers = struct.unpack(f"{order}60{letter[TYPES[code]]}", data[352:])
    scale = (np.float64(np.float32(slope)), np.float64(np.float32(inter))) if slope else (1.0, 0.0)
    for z, y, x in itertools.product(range(5), range(4), range(3)):
        expected = numbers[x + 3 * y + 12 * z] * scale[0] + scale[1]
        got = found.values[z, y, x]
        assert got == pytest.approx(expected, rel=1e-6 if found.values.dtype == "f4" else 1e-14)
    exact = slope in (0.0, 1.0)
    assert found.values.dtype == (
        dtype if exact else "f4" if dtype.itemsize < 4 or code == 16 else "f8"
    )
    assert found.header.depth == dtype.name + ("" if exact else ", scaled")


def orientations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    )


@pytest.mark.parametrize("way", range(48))
def test_a_marker_comes_out_where_it_is_in_the_body(tmp_path: Path, way: int) -> None:
    """Right, front and head are planted in millimetres; the picture has them left, up and last."""
    axes, signs = orientations()[way]
    shape, lengths = (5, 6, 7), (2.0, 3.0, 4.0)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (body, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[body, index] = sign * lengths[index]
    affine[:3, 3] = (10, -20, 30)
    places = np.indices(shape).reshape(3, -1).T
    mm = places @ affine[:3, :3].T + affine[:3, 3]
    # The voxel furthest to the right, to the front and to the head, and a value for each place.
    marker = places[np.lexsort((mm[:, 2], mm[:, 1], mm[:, 0]))[-1]]
    assert (mm[(places == marker).all(1)] == mm.max(0)).all()
    stored = np.zeros(shape, np.int16)
    stored[tuple(marker)] = 99
    gradient = read(tmp_path / "g.nii", nifti(mm[:, 0].reshape(shape).astype("f4"), affine))
    found = read(tmp_path / "a.nii", nifti(stored, affine))
    assert found.header.axes == "zyx"
    assert np.argwhere(found.values == 99).tolist() == [[found.values.shape[0] - 1, 0, 0]]
    # x of the body falls from column to column, wherever one looks.
    assert (np.diff(gradient.values, axis=2) < 0).all()
    assert (np.diff(gradient.values, axis=1) == 0).all()
    # The header's affine gives back the millimetres of every voxel.
    placed = np.array(found.header.affine)
    z, y, x = found.values.shape
    corner = placed @ [0, 0, z - 1, 1]
    assert corner[:3] == pytest.approx(mm.max(0))
    assert (placed @ [x - 1, y - 1, 0, 1])[:3] == pytest.approx(mm.min(0))
    by_body = {body: lengths[index] for index, body in enumerate(axes)}
    assert found.header.spacing == pytest.approx((by_body[2], by_body[1], by_body[0]))
    assert found.header.warnings == ()


def test_the_qform_counts_where_there_is_no_sform(tmp_path: Path) -> None:
    """A quarter turn about z by the standard's quaternion: i runs to the front, j to the left."""
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    half = np.sqrt(0.5)
    data = nifti(stored, qform=(252, "h", (1,)), quaternion=(256, "6f", (0, 0, half, 5, 6, 7)))
    found = read(tmp_path / "a.nii", data)
    assert found.header.spacing == pytest.approx((4, 2, 3))
    # x index of the file is y of the body: backwards along rows; j to the left: along columns.
    assert (found.values == stored[::-1].transpose(2, 0, 1)).all()


def test_time_is_the_first_axis_and_single_ones_fall_away(tmp_path: Path) -> None:
    stored = RNG.integers(0, 99, (2, 3, 4, 5), dtype=np.int16)
    found = read(tmp_path / "a.nii", nifti(stored, LPS))
    assert found.header.axes == "tzyx"
    assert (found.values == stored.transpose(3, 2, 1, 0)).all()
    single = read(tmp_path / "b.nii", nifti(stored[..., :1, None, None], LPS))
    assert single.header.axes == "zyx"
    assert (single.values == stored[..., 0].transpose(2, 1, 0)).all()
    flat = read(tmp_path / "c.nii", nifti(stored[:, :, 0, 0], LPS))
    assert flat.values.shape == (1, 3, 2)


def test_packed_and_paired_files_are_the_plain_one(tmp_path: Path) -> None:
    stored = RNG.integers(0, 99, (2, 3, 4), dtype=np.int16)
    plain = nifti(stored, LPS, 2.0, 1.0)
    expected = read(tmp_path / "a.nii", plain)
    packed = read(tmp_path / "any.name", gzip.compress(plain))
    assert (packed.values == expected.values).all()
    head = bytearray(plain[:348])
    head[344:348] = b"ni1\0"
    struct.pack_into("<f", head, 108, 0)
    (tmp_path / "p.img").write_bytes(plain[352:])
    pair = read(tmp_path / "p.hdr", bytes(head))
    assert (pair.values == expected.values).all()


def test_nibabel_reads_the_same(tmp_path: Path) -> None:
    """Values and millimetres of every voxel, of an oblique volume written by nibabel."""
    import nibabel

    tilt = np.deg2rad(15)
    affine = np.array(
        [
            [0.9 * np.cos(tilt), 0, 2 * np.sin(tilt), -7],
            [-0.9 * np.sin(tilt), 0, 2 * np.cos(tilt), 4],
            [0, -1.5, 0, 9],
            [0, 0, 0, 1],
        ]
    )
    image = nibabel.Nifti2Image(RNG.normal(size=(4, 5, 6)), affine)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    found, theirs = read(tmp_path / "a.nii.gz"), nibabel.load(tmp_path / "a.nii.gz")
    placed = np.array(found.header.affine)
    back = np.linalg.inv(placed) @ theirs.affine
    values = theirs.get_fdata()
    for place in itertools.product(*map(range, values.shape)):
        x, y, z = np.rint(back @ [*place, 1]).astype(int)[:3]
        assert found.values[z, y, x] == pytest.approx(values[place], rel=1e-6)


def test_what_is_not_finite_is_not_imaged(tmp_path: Path) -> None:
    stored = RNG.normal(size=(2, 3, 4)).astype("f4")
    stored[0, 0, 0], stored[1, 2, 3] = np.nan, np.inf
    found = read(tmp_path / "a.nii", nifti(stored, LPS))
    assert found.valid is not None
    assert np.argwhere(~found.valid).tolist() == [[0, 0, 0], [3, 2, 1]]
    assert found.values[0, 0, 0] == found.values[3, 2, 1] == 0
    with pytest.raises(DataError, match="all values are NaN"):
        read(tmp_path / "a.nii", nifti(np.full((2, 2, 2), np.nan, "f4"), LPS))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"affine": None}, "states no orientation"),
        (
            {"qform": (252, "h", (1,)), "quaternion": (256, "6f", (1, 0, 0, 0, 0, 0))},
            "sform and qform",
        ),
        ({"affine": "tilted"}, "30 degrees off"),
        ({"affine": "flat"}, "states no orientation"),
    ],
)
def test_doubts_about_the_orientation_are_told(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    tilted = np.eye(4)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    tilted[:2, :2] = [[c, -s], [s, c]]
    ways = {"tilted": tilted, "flat": np.zeros((4, 4))}
    affine = changed.pop("affine", LPS)
    affine = ways[affine] if isinstance(affine, str) else affine
    found = read(tmp_path / "a.nii", nifti(np.zeros((2, 3, 4), "i2"), affine, **changed))
    assert any(said in warning for warning in found.header.warnings), found.header.warnings
    assert (found.header.affine is None) == ("no orientation" in said)


def test_micrometres_are_millimetres_and_a_carried_dicom_header_is_warned_of(
    tmp_path: Path,
) -> None:
    micro = np.diag([-500.0, -500.0, 2000.0, 1.0])
    found = read(tmp_path / "a.nii", nifti(np.zeros((2, 3, 4), "i2"), micro, units=3))
    assert found.header.spacing == pytest.approx((2.0, 0.5, 0.5))
    plain = bytearray(nifti(np.zeros((2, 3, 4), "i2"), LPS))
    struct.pack_into("<f", plain, 108, 352 + 48)
    plain[348] = 1
    note = struct.pack("<ii", 48, 2) + b"PN Mueller^Hans".ljust(40)
    found = read(tmp_path / "b.nii", bytes(plain[:352]) + note + bytes(plain[352:]))
    (warning,) = found.header.warnings
    assert "DICOM header" in warning
    assert "Mueller" not in repr(found)


HUGE = {"dim": (40, "8h", (3, 32000, 32000, 32000, 1, 1, 1, 1))}
LARGE = {"dim": (40, "8h", (3, 1000, 1000, 1000, 1, 1, 1, 1))}
"""2 GB: allowed, and nothing that these files can hold."""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (nifti(np.zeros((2, 3, 4), "i2"))[:300], "cut short"),
        (nifti(np.zeros((2, 3, 4), "i2"))[:-1], "cut short"),
        (gzip.compress(nifti(np.zeros((64, 64, 4), "i2")))[:-12], "cut short|damaged"),
        (gzip.compress(nifti(RNG.integers(0, 9, (9, 9, 9), "i2")))[:-300], "cut short|damaged"),
        (nifti(np.zeros((2, 3, 4), "i2"), **HUGE), "65.5|6.55e"),
        (gzip.compress(nifti(np.zeros((2, 3, 4), "i2"), **HUGE)), "GB"),
        (nifti(np.zeros((2, 3, 4), "i2"), **LARGE), "claims 2000000352 bytes"),
        (gzip.compress(nifti(np.zeros((2, 3, 4), "i2"), **LARGE)), "packed ones"),
        (gzip.compress(bytes(10) * 2**20), None),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(70, "h", (128,))), "RGB"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(70, "h", (1792,))), "complex128"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(70, "h", (1111,))), "header that cannot be used"),
        (nifti(np.zeros((2, 3, 4, 1, 3), "i2")), "5 axes"),
        (nifti(np.zeros((2,), "i2")), "shape"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(40, "2h", (3, 0))), "shape"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(40, "2h", (3, -5))), "shape|header"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(108, "f", (1e30,))), "begin|header"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(108, "f", (4,))), "begin|header"),
        (nifti(np.zeros((2, 3, 4), "i2"), d=(344, "4s", (b"\0\0\0\0",))), None),
        (
            nifti(np.zeros((2, 3, 4), "i2"), d=(344, "4s", (b"\0",)), r=(38, "c", (b"r",))),
            "Analyze",
        ),
    ],
    ids=[
        *("header cut", "byte cut", "gzip cut", "gzip cut inside", "claims more", "claims 100 GB"),
        *("claims 2 GB", "claims 2 GB packed"),
        *("gzip bomb", "RGB", "complex", "unknown type", "five axes", "one axis", "no rows"),
        *("negative rows", "begins far", "begins in the header", "no magic", "Analyze"),
    ],
)
def test_what_cannot_be_used_is_a_sentence_before_memory_is_taken(
    tmp_path: Path, data: bytes, said: str | None
) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(data)
    reader = ssmdiff.create("reader", "nifti")
    tracemalloc.start()
    try:
        if said is None or not reader.claims(path, data[:4096]):
            assert not reader.claims(path, data[:4096])
            return
        with pytest.raises(DataError, match=said) as refused:
            reader.read(Source((path,), path.name))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))


def test_a_claim_that_fits_its_packed_bytes_is_held_against_the_limit(tmp_path: Path) -> None:
    bomb = gzip.compress(nifti(np.zeros((64, 64, 64), "i2"), LPS))
    assert read(tmp_path / "a.nii", bomb).values.shape == (64, 64, 64)
    with pytest.raises(DataError, match=r"at most 0\.0005 GB are read"):
        read(tmp_path / "a.nii", bomb, max_bytes=500_000)


def test_a_header_without_its_values_is_refused(tmp_path: Path) -> None:
    head = bytearray(nifti(np.zeros((2, 3, 4), "i2"))[:348])
    head[344:348] = b"ni1\0"
    (tmp_path / "a.hdr").write_bytes(head)
    found = ssmdiff.gather(tmp_path, [tmp_path / "a.hdr"])
    (refused,) = found.refused
    assert "a.img" in refused.reason
