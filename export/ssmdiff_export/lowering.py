"""The scan as a node of an ONNX file, put in torch's operator's place while the model is traced.

:class:`Lowering` calls :func:`lowered`, which has bias, softplus, the sum over the directions and
D's skip as plain operators around the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from ssmdiff.nn import replacing
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ssmdiff_export.runtime.card import (
    ATTRIBUTES,
    DOMAIN,
    DOMAIN_VERSION,
    LINEAR_ATTENTION,
    OPERATORS,
    ScanBody,
)


@contextlib.contextmanager
def lowering(body: ScanBody | None) -> Iterator[None]:
    """While it is entered, what a body puts its nodes in the place of is traced as these.

    Args:
        body: Of an ONNX file; None changes nothing.
    """
    if body is None:
        yield
    elif body == LINEAR_ATTENTION:
        from ssmdiff_export import linear_attention

        with Lowering(linear_attention.selective_scan), replacing(linear_attention.REPLACED):
            yield
    else:
        with Lowering(scan_node):
            yield


class Lowering(TorchFunctionMode):
    """While it is entered, a call of ``ssmdiff::selective_scan`` is :func:`lowered`.

    Sums of integers become sums of floats, which are all that TensorRT has. Done at the first
    trace: a decomposition of the exported program would trace all of it again.

    Args:
        scan: What stands in the scan's place; see :func:`scan_node`.
    """

    def __init__(self, scan: Callable[..., Tensor]) -> None:
        super().__init__()
        self.scan = scan

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.ops.ssmdiff.selective_scan.default:
            return lowered(self.scan, *args, **named)
        if func in (torch.cumsum, torch.Tensor.cumsum) and not args[0].is_floating_point():
            # TensorRT sums floats alone; the numbers of restarts are exact up to 2**24 tokens.
            dtype = named.pop("dtype", None) or torch.int64
            return func(args[0].float(), *args[1:], **named).to(dtype)
        return func(*args, **named)


def lowered(
    scan: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> Tensor:
    """``ssmdiff::selective_scan`` as a node and plain operators; the op's signature behind it."""
    steps = delta.float()
    if delta_bias is not None:
        steps = steps + delta_bias.float()[:, None]
    if delta_softplus:
        steps = F.softplus(steps)
    y = scan(u, steps, A.float(), B.to(u.dtype), C.to(u.dtype), order, discretization)
    merged = y.float().sum(1)
    if D is not None:
        merged = merged + u.float() * D.float().sum(0)
    return merged.to(u.dtype)


def scan_node(
    u: Tensor,
    steps: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    discretization: str = "euler",
) -> Tensor:
    """Our ONNX node: (B, L, D) and the rest of its inputs to (B, K, L, D), in grid order."""
    y: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{OPERATORS[discretization]}",
        (u, steps, A, B, C, order),
        dict(ATTRIBUTES),
        dtype=u.dtype,
        shape=steps.shape,
        version=DOMAIN_VERSION,
    )
    return y
