"""``python -m ssmdiff_export.runtime MODEL --out images.npy``, where torch is not installed."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssmdiff_export.runtime.drawing import arguments, draw, run
from ssmdiff_export.runtime.sampler import OnnxSampler
from ssmdiff_export.runtime.session import PROVIDERS


def main() -> None:
    """Draw images of an exported file."""
    parser = argparse.ArgumentParser(
        "python -m ssmdiff_export.runtime",
        description="Images of a file that ssmdiff export --to onnx wrote.",
    )
    parser.add_argument("model", type=Path, help="The .onnx file.")
    arguments(parser)
    parser.add_argument("--provider", choices=sorted(PROVIDERS), default="cpu")
    parser.add_argument("--threads", type=int, help="Of one call of the network.")
    asked = parser.parse_args()
    run(lambda: draw(OnnxSampler(asked.model, asked.provider, threads=asked.threads), asked))


if __name__ == "__main__":
    main()
