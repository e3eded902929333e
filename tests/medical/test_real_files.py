"""The template volumes of nilearn and the test files of nibabel: read as nibabel reads them, or
refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from real_files import Row, rows

nibabel = pytest.importorskip("nibabel")
nilearn = pytest.importorskip("nilearn")
pytestmark = pytest.mark.slow

REFUSED = {
    "tests/data/analyze.hdr": "Analyze 7.5",
    "tests/data/nifti1.hdr": "its values beside it",
    "tests/data/nifti2.hdr": "its values beside it",
    "tests/data/row_major.dconn.nii": "6 axes",
}


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return list(rows())


def test_every_file_is_read_or_refused_in_a_sentence(table: list[Row]) -> None:
    assert [row for row in table if row.outcome == "traceback"] == []
    refused = {row.name: row.what for row in table if row.outcome == "refused"}
    assert set(REFUSED) <= set(refused)
    for name, said in refused.items():
        assert REFUSED.get(name, "") in said
        assert "\n" not in said
    read = [row for row in table if row.outcome == "read" and row.reader == "nifti"]
    assert len([row for row in read if row.package == "nilearn"]) >= 4
    assert len([row for row in read if row.package == "nibabel"]) >= 7


def images() -> list[Any]:
    found = []
    for package in (nilearn, nibabel):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.nii*")):
            if path.name not in {Path(name).name for name in REFUSED}:
                found.append(pytest.param(path, id=path.name))
    return found


@pytest.mark.parametrize("path", images())
def test_values_and_places_are_nibabels(path: Path) -> None:
    """Its closest canonical image, turned from RAS to ours: left to right and front to back."""
    reader = ssmdiff.create("reader", "nifti")
    data = reader.read(ssmdiff.Source((path,), path.name))
    theirs = nibabel.as_closest_canonical(nibabel.load(path))
    expected = theirs.get_fdata()[::-1, ::-1]
    imaged = np.isfinite(expected.T)
    assert (data.valid is None) == imaged.all()
    np.testing.assert_allclose(data.values, np.where(imaged, expected.T, 0), rtol=1e-6)
    assert data.valid is None or (data.valid == imaged).all()
    assert data.values.shape == expected.T.shape
    x, y = expected.shape[:2]
    from_right = np.diag([-1.0, -1, 1, 1])
    from_right[:2, 3] = x - 1, y - 1
    turned = theirs.affine @ from_right
    if data.header.affine is not None:
        np.testing.assert_allclose(data.header.affine, turned, atol=1e-5)
        zooms = theirs.header.get_zooms()[:3][::-1]
        np.testing.assert_allclose(data.header.spacing, zooms, rtol=1e-5)


def test_the_template_brain_lies_where_its_atlas_says() -> None:
    """MNI152: white matter, fluid and air at known millimetres."""
    path = next(Path(nilearn.__file__).parent.rglob("mni_icbm152_t1_tal*.nii.gz"))
    data = ssmdiff.create("reader", "nifti").read(ssmdiff.Source((path,), path.name))
    placed = np.linalg.inv(np.array(data.header.affine))

    def value(*mm: float) -> float:
        x, y, z = np.rint(placed @ [*mm, 1]).astype(int)[:3]
        return float(data.values[z, y, x])

    # The left centrum semiovale, a lateral ventricle, and the air above the forehead.
    assert value(-25, -15, 35) > 200
    assert value(-7, 10, 12) < 150
    assert value(0, 85, 60) == 0
    assert data.header.affine is not None
    assert data.header.affine[0][0] < 0, "columns go from right to left"
    assert data.header.affine[1][1] < 0, "rows go from the front to the back"
