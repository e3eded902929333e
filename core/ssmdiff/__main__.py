"""``python -m ssmdiff``: the command line, wherever it is installed from."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def main() -> None:
    """Call the console script ``ssmdiff`` of this environment."""
    points = entry_points(group="console_scripts", name="ssmdiff")
    if not points:
        sys.exit("ssmdiff: the command line is not installed here. Try: pip install ssmdiff")
    ours = [point for point in points if point.dist and point.dist.name == "ssmdiff"]
    (ours or list(points))[0].load()()


if __name__ == "__main__":
    main()
