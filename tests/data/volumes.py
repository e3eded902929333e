"""A file format of the tests' own, read by a plugin, and folders of it.

A file is ``VOL1``, the length of a JSON header, the header, and float32 values: what NIfTI and
DICOM give, without their packages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

PLUGIN = """
import json
import numpy as np
import ssmdiff


class VolReader:
    suffixes = frozenset({".vol"})

    def claims(self, path, head):
        return head.startswith(b"VOL1")

    def sources(self, root, files):
        for path in files:
            yield ssmdiff.Source((path,), path.relative_to(root).as_posix())

    def header(self, source):
        return self._head(source)[0]

    def read(self, source):
        header, content = self._head(source)
        values = np.frombuffer(content, "<f4")
        if values.size != np.prod(header.shape):
            raise ssmdiff.DataError(f"{source.name}: it is cut short")
        return ssmdiff.ImageData(values.reshape(header.shape), header)

    def _head(self, source):
        content = source.files[0].read_bytes()
        length = int.from_bytes(content[4:8], "little")
        fields = json.loads(content[8 : 8 + length])
        if fields.pop("bad", False):
            raise ssmdiff.DataError(f"{source.name}: its header is odd; expected another")
        for key in ("shape", "spacing", "value_range"):
            if fields.get(key) is not None:
                fields[key] = tuple(fields[key])
        return ssmdiff.ImageHeader(**fields), content[8 + length :]


@ssmdiff.hookimpl
def ssmdiff_readers():
    yield ssmdiff.Component("vol", VolReader, "volumes of a test")
"""


def write(path: Path, values: np.ndarray, axes: str = "zyx", **fields: Any) -> Path:
    """A volume on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"shape": values.shape, "axes": axes, "depth": "float32", **fields}
    text = json.dumps(header).encode()
    content = np.ascontiguousarray(values, "<f4").tobytes()
    path.write_bytes(b"VOL1" + len(text).to_bytes(4, "little") + text + content)
    return path


def patients(root: Path, count: int = 12, scans: int = 2, **fields: Any) -> Path:
    """``count`` patients with some scans each, of 4 slices of 6 x 8."""
    for patient in range(count):
        for scan in range(scans):
            draw = np.random.default_rng([patient, scan])
            values = draw.normal(100 * patient, 5, (4, 6, 8))
            name = f"JANE^DOE{patient:03d}"
            write(root / f"sub-{patient:03d}" / f"scan{scan}.vol", values, patient=name, **fields)
    return root
