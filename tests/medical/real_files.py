"""Files that nobody here wrote: what becomes of each. ``python tests/medical/real_files.py``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ssmdiff

PACKAGES = ("nilearn", "nibabel")
"""Their wheels hold template volumes and files made to be difficult."""


class Row(NamedTuple):
    package: str
    name: str
    reader: str
    """Empty where nobody claims the file."""
    what: str
    """What came of it: shape and values, a sentence, or a traceback."""
    outcome: str
    """``read``, ``refused`` or ``traceback``."""


def rows(packages: tuple[str, ...] = PACKAGES) -> Iterator[Row]:
    """Every file in these packages that a reader claims."""
    readers, _ = ssmdiff.make_readers()
    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        files = sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        found = ssmdiff.gather(root, files, readers)
        for refused in found.refused:
            yield Row(package, refused.name, "", refused.reason.replace(f"{root}/", ""), "refused")
        for reader, source in found.sources:
            name = f"{source.name} ({source.part})" if source.part else source.name
            try:
                header = readers[reader].header(source)
                data = readers[reader].read(source)
            except ssmdiff.DataError as error:
                said = str(error).replace(f"{root}/", "")
                yield Row(package, name, reader, said, "refused")
            except Exception:
                yield Row(package, name, reader, traceback.format_exc(), "traceback")
            else:
                values = data.values
                what = (
                    f"{ssmdiff.size_text(header.shape)} {header.axes}, {header.depth}, "
                    f"{values.min():g} to {values.max():g}"
                )
                yield Row(package, name, reader, what, "read")


def main() -> None:
    print("| package | file | reader | what came of it |\n|---|---|---|---|")
    for row in rows(tuple(sys.argv[1:]) or PACKAGES):
        print(f"| {row.package} | {row.name} | {row.reader} | {row.what} |")


if __name__ == "__main__":
    main()
