"""Every component that ssmdiff ships keeps the contract of its kind: one test for each check.

A new component is tested without a line being written here; only one that needs options, or is
too large as it comes, has a spec below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ssmdiff.registry.registry import Registry, registry
from ssmdiff.testing import suite_for, why_unchecked

SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("backbone", "vmddpm"): {"channels": 8, "widths": [1, 2]},
    ("backbone", "vmunet"): {"channels": 8, "widths": [1, 2], "stem_stride": 1},
    ("backbone", "unet"): {"channels": 8, "widths": [1, 2], "layers": 1},
    ("backbone", "isotropic"): {"channels": 32, "depth": 2},
    ("features", "contrastive"): {"steps": 2, "size": 8, "width": 8},
    ("metric", "ms-ssim"): {"pairs": 64},
    ("metric", "classifier"): {"steps": 1, "seeds": 1},
}
COMPILED_ALWAYS = {"raster", "hilbert", "atrous", "layers", "regenerate"}
"""A scan of each form of order, whose graphs are compiled in every tier; the others' are slow."""


def cases():
    for entry in Registry(allowed=[]).all():
        kind, name = entry.kind.name, entry.component.name
        for check in suite_for(kind).checks:
            slow = (kind, check) == ("scan", "graphs") and name not in COMPILED_ALWAYS
            slow |= (name, check) == ("torch", "long")  # seconds of the slow reference
            slow |= check == "distribution" and name != "ddim"
            slow |= name == "classifier"  # the import of MONAI
            slow |= (kind, name) == ("backbone", "unet")  # the import of diffusers
            slow |= (name, check) == ("vmunet", "export")
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(kind, name, check, marks=marks, id=f"{kind}-{name}-{check}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 48)).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of nobody's images, and one of each published data set as far as its terms go."""
    from ssmdiff_data.store import ArraySpec, StoreWriter, Table

    found = {}
    for name in ("store", "acdc", "brats2018", "chestxray14"):
        found[name] = path = tmp_path_factory.mktemp(name)
        factory = registry().find("dataset", name).factory()
        facts = {"terms": factory.TERMS._asdict()} if hasattr(factory, "TERMS") else {}
        writer = StoreWriter(path, 5, {"image": ArraySpec((1, 20, 24), "uint8")})
        pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 20, 24)).astype(np.uint8)
        writer.append({"image": pixels})
        table = Table(["train"] * 4 + ["test"], list("abcde"), [0, 1, 0, 1, 0], {})
        writer.finish(table, ("a", "b"), facts)
    return found


@pytest.fixture(scope="module")
def subjects(folder: Path, stores: dict[str, Path], inception_file: dict[str, str]):
    """The subject of a kind and name, built once."""
    built: dict[tuple[str, str], Any] = {}
    of_files = {"folder": {"path": str(folder)}, "inception": inception_file}
    of_files |= {name: {"path": str(path)} for name, path in stores.items()}

    def subject(kind: str, name: str) -> Any:
        options = of_files.get(name) or SMALL.get((kind, name), {})
        if (kind, name) not in built:
            reason = why_unchecked(registry().find(kind, name), options)
            if reason:
                pytest.skip(str(reason))
            built[kind, name] = suite_for(kind).subject({"name": name, **options})
        return built[kind, name]

    return subject


@pytest.mark.parametrize(("kind", "name", "check"), list(cases()))
def test_contract(kind: str, name: str, check: str, subjects) -> None:
    finding = suite_for(kind).finding(subjects(kind, name), check)
    if finding.skipped:
        pytest.skip(finding.detail)
    assert finding.ok, finding.detail
