"""Every built-in scan with its main options, the grids of the catalogue, and which it claims."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from ssmdiff.orders.scan import Grid, Scan, ScanOrder
from ssmdiff.registry.registry import Registry, create

NAMES = Registry(allowed=[]).names("scan")
LINES: list[Grid] = [(1,), (2,), (7,), (64,)]
IMAGES: list[Grid] = [
    *itertools.product(range(1, 10), range(1, 10)),
    *[(14, 14), (16, 16), (5, 12), (7, 5), (1, 64)],
]
VOLUMES: list[Grid] = list(itertools.product(range(1, 5), repeat=3))
GRIDS = LINES + IMAGES + VOLUMES

CURVES = ["snake", "diagonal", "antidiagonal", "jpeg", "morton", "hilbert", "spiral", "rings",
          "local", "stripes", "atrous", "zigzag", "sweep8"]  # fmt: skip
OPTIONS: dict[str, list[dict[str, Any]]] = {
    **{name: [{"paths": n, "by_layer": b} for n in (1, 2, 4, 8) for b in (False, True)]
       for name in CURVES},
    "axis-cross": [{"by_layer": True}],
    "layers": [{"scans": ["zigzag", "raster", "zigzag"]}, {"scans": ["shuffle", "snake"]}],
    "random": [{"seed": 7}, {"paths": 3}],
    "shuffle": [{"paths": 2}],
    "regenerate": [{"base": "snake", "block": 2}, {"base": {"name": "zigzag"}}],
}  # fmt: skip
OPTIONS["snake"] += [{"along": "column"}]
OPTIONS["spiral"] += [{"start": "centre"}]
OPTIONS["local"] += [{"window": k, "paths": 1} for k in (1, 2, 3, 7)] + [{"window": 2}]
OPTIONS["stripes"] += [{"width": k, "shift": s} for k, s in ((1, 0), (2, 1), (3, 2), (5, 7))]
OPTIONS["atrous"] += [{"step": d, "paths": n} for d, n in ((2, 1), (3, 2), (3, 4), (12, 1))]

SPECS = [{"name": name, **options} for name in NAMES for options in ({}, *OPTIONS.get(name, []))]
IDS = ["-".join(str(value) for value in spec.values()) for spec in SPECS]

AXES = {"tri": {3}, "hilbert": {2, 3}} | {
    name: {2} for name in ("zigzag", "jpeg", "spiral", "rings", "stripes")
}


def claims(spec: dict[str, Any]) -> set[int]:
    """How many axes the grids may have that a scan must serve; it refuses all others."""
    if spec["name"] == "layers":
        return set.intersection(*(claims({"name": n}) for n in spec.get("scans", ["raster"])))
    if spec["name"] == "regenerate":
        base = spec.get("base", "cross")
        return claims(base if isinstance(base, dict) else {"name": base})
    axes = AXES.get(spec["name"], {1, 2, 3})
    default = {"local": 4, "atrous": 4, "stripes": 4, "zigzag": 8, "sweep8": 8}
    symmetric = spec["name"] in CURVES
    paths = spec.get("paths", default.get(spec["name"], 1))
    return axes & {2} if symmetric and paths > 2 else axes


def layers_of(scan: Scan) -> list[Scan]:
    """The scans of the first nine S6 calls, each once."""
    return list({id(of_slot): of_slot for of_slot in map(scan.at, range(9))}.values())


def order_of(scan: Scan, grid: Grid, seed: int = 0) -> ScanOrder:
    return scan.order(grid, np.random.default_rng(seed))


def rows(name: str, grid: Grid, **options: Any) -> list[list[int]]:
    """The table of a scan, as lists."""
    return order_of(create("scan", name, **options), grid).index.tolist()


def path(name: str, grid: Grid, **options: Any) -> list[int]:
    """The table of a scan of one direction."""
    (row,) = rows(name, grid, **options)
    return row
