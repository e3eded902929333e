"""``--check-tensorrt``: what the TensorRT that is installed makes of a file, or else our table.

A parser's "yes" is not enough: it takes files that the builder refuses. So the file is built, for
this machine's GPU or else for the cards that TensorRT for RTX builds for, and the engine dropped.
"""

from __future__ import annotations

from pathlib import Path

from ssmdiff import ExportError

from ssmdiff_export.model_file import BATCH
from ssmdiff_export.parser_rules import check_parser_rules, rules
from ssmdiff_export.tensorrt.binding import PRODUCTS, Product, load_tensorrt
from ssmdiff_export.tensorrt.builder import build_engine
from ssmdiff_export.tensorrt.device import Cuda
from ssmdiff_export.tensorrt.exporter import CAPABILITIES, GIBIBYTE


def check_tensorrt(path: Path, precision: str = "fp32", progress: bool = False) -> str:
    """Parse and build a file, or hold it against the table where nothing can build.

    Args:
        path: An ONNX file of ours.
        precision: Of the file.
        progress: Show the builder's phases.

    Returns:
        What was found, for a person.

    Raises:
        ExportError: TensorRT refuses it, with its reasons, or the table does.
    """
    product = _builder()
    if product is None:
        check_parser_rules(path)
        return (
            f"every node is in our table of TensorRT's parser ({rules().tensorrt}); no TensorRT "
            "that builds here is installed, so it was not asked itself"
        )
    build = build_engine(
        path,
        BATCH,
        precision=precision,
        workspace_bytes=4 * GIBIBYTE,
        progress=progress,
        product=product,
        capabilities=tuple(CAPABILITIES.split(",")) if product.capabilities else (),
    )
    cards = f" for cards of capability {CAPABILITIES}" if product.capabilities else ""
    return (
        f"{product.title} {load_tensorrt(product).__version__} takes and builds it{cards}: "
        f"{build.layers} layers, {len(build.plan) / 1e6:.1f} MB in {build.build_s:.0f} s, not kept"
    )


def _builder() -> Product | None:
    """The first product that can build on this machine."""
    for product in PRODUCTS.values():
        try:
            load_tensorrt(product)
            if not product.capabilities:
                Cuda()
        except ExportError:
            continue
        return product
    return None
