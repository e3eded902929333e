"""What TensorRT for RTX builds of our files: blocks x bodies x precisions x two sizes.

    python benchmarks/tensorrt_builds.py --json benchmarks/results/tensorrt_builds.json

Untrained models with drawn weights, of `tiny` at 32 px and `small` at 128 px (U-net) and of two
stacks of the same sides. Each is exported, its file parsed and built for cards of one capability,
without a GPU: seconds, megabytes, layers; with ``--twice`` built two times more for one batch
size, and the bytes compared. Of every file that ONNX Runtime runs on a CPU, the images of one seed
are held against torch's. No engine runs here; nothing is said of its speed or its numbers.

A row that is in the record already is not made again, so that it can be stopped and gone on with.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from ssmdiff import ExportError, RunFolder, build_backbone, load_preset, load_run, resolve
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_export.onnx_export import add_functions, export_onnx
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.runtime.card import DOMAIN, METADATA
from ssmdiff_export.tensorrt.binding import RTX, load_tensorrt
from ssmdiff_export.tensorrt.builder import build_engine

STACKS = {
    "tiny, 32 px": {"name": "isotropic", "channels": 64, "depth": 4, "patch": 4},
    "small, 128 px": {"name": "isotropic", "channels": 192, "depth": 8, "patch": 8},
}
SIZES = {"tiny, 32 px": ("tiny", 32), "small, 128 px": ("small", 128)}
BLOCKS = {
    "mss": False,
    "vss": False,
    "conv": False,
    "mamba": True,
    "mamba2": True,
    "attention": True,
}
"""Whether it stands in a stack or in the U-net."""
BODIES_OF = {
    block: ("scan", "chunked") if block in ("mss", "vss", "mamba") else ("none",)
    for block in BLOCKS
}
FUSED = ("fused",)
"""As ``--to onnx`` writes it in fp32: with operators of ours that hold more than one node."""
PRECISIONS = ("fp32", "fp16", "bf16")
KEYS = ("size", "block", "body", "precision")
Row = dict[str, Any]
Rows = set[tuple[Any, ...]]
CAPABILITY = "8.9"
BATCH, FIXED = (1, 4, 8), "4:4:4"
STEPS, SEED = 2, 5
RANGE = 2.0  # -1 to 1
IMAGE_TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}
"""Largest difference of images, of their range. With few steps, what a network that predicts the
noise is off by at the first counts 1 / sqrt(alpha_bar) times, about 150."""


def make_run(folder: Path, size: str, block: str) -> Any:
    """A run of an untrained model, all of whose weights are drawn."""
    preset, side = SIZES[size]
    model: dict[str, Any] = {"block": {"name": block}}
    if BLOCKS[block]:
        model["backbone"] = STACKS[size]
    config = resolve(load_preset(preset), {"data": {"image_size": side}, "model": model})
    torch.manual_seed(0)
    network = build_backbone(config, 1)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.02, generator=generator)
    run = RunFolder(folder)
    run.create(config)
    run.save_checkpoint(1, {"ema": network.state_dict()}, {"channels": 1, "class_names": []})
    return load_run(folder)


def with_body(path: Path, body: str, to: Path) -> None:
    """The same file with another function of the scan."""
    proto = onnx.load(path)
    del proto.functions[:]
    add_functions(proto, body)
    card = json.loads({p.key: p.value for p in proto.metadata_props}[METADATA])
    helper.set_model_props(proto, {METADATA: json.dumps(card | {"body": body})})
    onnx.save(proto, to)


def built(path: Path, precision: str, twice: bool) -> dict[str, Any]:
    """A build of a file in a process of its own, or why there is none.

    Two more for one batch size if asked, whose bytes are compared: for a range of sizes TensorRT
    numbers the computations of shapes anew each time.
    """

    def build(batch: str) -> dict[str, Any]:
        command = [sys.executable, __file__, "--build", str(path), precision, batch]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return made

    row = build(":".join(map(str, BATCH)))
    if twice and row["builds"]:
        row["same_bytes"] = len({build(FIXED)["sha256"] for _ in range(2)}) == 1
    return row


def build_once(path: Path, precision: str, batch: str) -> dict[str, Any]:
    """In the process of its own."""
    fewest, usual, most = map(int, batch.split(":"))
    before_s = time.process_time()
    try:
        made = build_engine(
            path,
            (fewest, usual, most),
            precision=precision,
            workspace_bytes=4 << 30,
            product=RTX,
            capabilities=(CAPABILITY,),
        )
    except ExportError as error:
        reason = str(error)
        return {"parses": "cannot take" not in reason, "builds": False, "why": reason[:500]}
    return {
        "parses": True,
        "builds": True,
        "build_s": round(made.build_s, 1),
        "processor_s": round(time.process_time() - before_s, 1),
        "megabytes": round(len(made.plan) / 1e6, 3),
        "layers": made.layers,
        "warnings": len(made.log),
        "sha256": hashlib.sha256(made.plan).hexdigest(),
    }


def images(path: Path, precision: str, expected: np.ndarray) -> dict[str, Any]:
    """The images of the file beside torch's, where ONNX Runtime has the file's type."""
    if precision not in IMAGE_TOLERANCE:
        return {"images": "ONNX Runtime has no bfloat16 on a CPU"}
    drawn = OnnxSampler(path).sample(len(expected), seed=SEED, steps=STEPS, scheduler="ddim")
    difference = float(np.abs(drawn - expected).max())
    tolerance = IMAGE_TOLERANCE[precision]
    return {"images_max_abs": difference, "images_agree": difference <= tolerance * RANGE}


def rows_of(
    folder: Path, size: str, block: str, precisions: list[str], done: Rows, twice: bool
) -> Iterator[Row]:
    """Every precision and body of one model that is not done."""
    run = expected = None
    for precision in precisions:
        every = BODIES_OF[block] + FUSED * (precision == "fp32")
        bodies = [b for b in every if (size, block, b, precision) not in done]
        if not bodies:
            continue
        if run is None:
            run = make_run(folder / "run", size, block)
            expected = run.sample(1, seed=SEED, steps=STEPS, scheduler="ddim").numpy()
        path = folder / f"{precision}.onnx"
        start_s = time.process_time()
        report = export_onnx(run, path, precision=precision, verify=False)
        export_s = round(time.process_time() - start_s, 1)
        scans = sum(node.domain == DOMAIN for node in onnx.load(path).graph.node)
        for body in bodies:
            file = path
            if body == "chunked":
                file = folder / f"{precision}-chunked.onnx"
                with_body(path, body, file)
            elif body == "fused":
                file = folder / "fused.onnx"
                export_onnx(run, file, precision=precision, verify=False, fuse=True)
            row = {"size": size, "block": block, "body": body, "precision": precision}
            row |= {"scans": scans, "onnx_megabytes": round(report.bytes / 1e6, 2)}
            row |= {"export_processor_s": export_s, "load_average": load_average()}
            yield row | images(file, precision, expected) | built(file, precision, twice)


def markdown(rows: list[Row]) -> str:
    """The table of the docs."""
    lines = [
        "| model | block | body | precision | scans | s of processor | MB | layers | images |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = [[*SIZES], [*BLOCKS], ["scan", "chunked", "none", "fused"], [*PRECISIONS]]
    places = [[o.index(row[k]) for o, k in zip(order, KEYS, strict=True)] for row in rows]
    for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0]):
        cells = [row["size"], row["block"], row["body"], row["precision"], row["scans"]]
        if row["builds"]:
            cells += [f"{row['processor_s']:.0f}", f"{row['megabytes']:.1f}", row["layers"]]
        else:
            cells += ["**refused**", "", ""]
        apart = row.get("images_max_abs")
        cells.append("-" if apart is None else f"{apart:.0e}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="the record to begin or to go on with")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--blocks", nargs="*", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--twice", action="store_true", help="build again and compare the bytes")
    parser.add_argument("--build", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        print(json.dumps(build_once(Path(arguments.build[0]), *arguments.build[1:])))
        return
    record: dict[str, Any] = {"rows": []}
    if arguments.json and arguments.json.exists():
        record = json.loads(arguments.json.read_text(encoding="utf-8"))
    version = f"{RTX.title} {load_tensorrt(RTX).__version__}"
    record |= {"tensorrt": version, "capability": CAPABILITY, "batch": BATCH, "steps": STEPS}
    record |= {"image_tolerance": IMAGE_TOLERANCE, "machine": machine()}
    done = {tuple(row[key] for key in KEYS) for row in record["rows"]}
    for size, block in itertools.product(arguments.sizes, arguments.blocks):
        with tempfile.TemporaryDirectory() as folder:
            asked = (arguments.precisions, done, arguments.twice)
            for row in rows_of(Path(folder), size, block, *asked):
                print(json.dumps(row), flush=True)
                record["rows"].append(row)
                if arguments.json:
                    arguments.json.write_text(_text(record), encoding="utf-8")
    print(markdown(record["rows"]))


def _text(record: dict[str, Any]) -> str:
    """JSON with a line for each row."""
    head = json.dumps({key: value for key, value in record.items() if key != "rows"})[:-1]
    rows = ",\n".join(json.dumps(row) for row in record["rows"])
    return f'{head}, "rows": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    main()
