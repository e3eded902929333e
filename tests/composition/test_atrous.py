"""One call along the atrous order is d * d calls on d * d smaller images."""

import pytest
import ssmdiff
import torch
from ssmdiff.ops import selective_scan, use_kernel


@pytest.mark.parametrize(("H", "W", "d"), [(6, 4, 2), (7, 5, 2), (7, 8, 3)])
@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_atrous_is_a_scan_of_each_sub_grid(H, W, d, kernel):
    """Raster over every d-th row and column, from each of the d * d offsets, states anew."""
    L, D, N = H * W, 3, 4
    dtype = torch.float64 if kernel == "torch" else torch.float32
    g = torch.Generator().manual_seed(0)
    u, delta = (torch.randn(*s, generator=g, dtype=dtype) for s in ((2, L, D), (2, 1, L, D)))
    B, C = (torch.randn(2, 1, L, N, generator=g, dtype=dtype) for _ in range(2))
    A = -torch.rand(1, D, N, generator=g, dtype=dtype)
    order = ssmdiff.create("scan", "atrous", paths=1, step=d).order((H, W))
    with use_kernel(kernel):
        whole = selective_scan(u, delta, A, B, C, torch.tensor(order.coded))
        tokens = torch.arange(L).view(H, W)
        for h in range(d):
            for w in range(d):
                part = tokens[h::d, w::d].flatten()
                raster = torch.arange(len(part), dtype=torch.int32)[None]
                alone = selective_scan(
                    u[:, part], delta[:, :, part], A, B[:, :, part], C[:, :, part], raster
                )
                torch.testing.assert_close(whole[:, part], alone, rtol=1e-6, atol=1e-6)
