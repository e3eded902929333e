"""Our table of what TensorRT's parser takes, against the parser of TensorRT for RTX itself.

    python benchmarks/parser_rules.py --json benchmarks/results/parser_rules.json

Each synthetic model of ``parser_nodes.py`` is held against ``parser_operators.json``, parsed by the
installed TensorRT for RTX and, where it parses, built for a card of capability 8.9. No GPU is
needed. It lists where table and parser disagree, and what only the parser takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from onnx import ModelProto
from parser_nodes import Case, cases
from ssmdiff_export.parser_rules import parser_findings, rules
from ssmdiff_export.tensorrt.binding import RTX, load_tensorrt, make_logger

CAPABILITY = "SM89"


def asked(trt: Any, model: ModelProto) -> dict[str, Any]:
    """What parser and builder say: ``parses``, ``builds`` and the first reason against it."""
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return {"parses": False, "builds": False, "why": (errors or logger.lines or [""])[0][:200]}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, CAPABILITY), 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(tensor.shape)
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *[[n] * max(1, *shape, 1) for n in (1, 2, 4)])
        elif -1 in shape:
            profile.set_shape(
                tensor.name, *[[n if s == -1 else s for s in shape] for n in (1, 2, 4)]
            )
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    why = next((line for line in logger.lines if "error" in line[:15]), "")
    return {"parses": True, "builds": plan is not None, "why": "" if plan else why[:200]}


def compare(trt: Any, case: Case) -> dict[str, Any]:
    """One case: the table's word beside the parser's and the builder's."""
    found = parser_findings(case.model)
    table = {"table": not found, "objection": found[0].problem if found else ""}
    return {"case": case.name, **table, **asked(trt, case.model)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args()
    trt = load_tensorrt(RTX)
    rows = [compare(trt, case) for case in cases()]
    apart = [row for row in rows if row["table"] != row["builds"]]
    unbuilt = [row for row in rows if row["parses"] and not row["builds"]]
    version = f"{RTX.title} {trt.__version__}"
    print(f"{len(rows)} models; {version}; table: {rules().tensorrt}")
    print(f"{len(apart)} on which table and TensorRT disagree:")
    for row in apart:
        taken = "the table takes it" if row["table"] else f"the table: {row['objection']}"
        print(f"  {row['case']:<34} {taken}; TensorRT: {row['why'] or 'builds it'}")
    print(f"{len(unbuilt)} that the parser takes and the builder does not:")
    for row in unbuilt:
        print(f"  {row['case']:<34} {row['why']}")
    if arguments.json:
        lines = ",\n".join(json.dumps(row) for row in rows)
        head = json.dumps({"tensorrt": version, "table": rules().tensorrt})[:-1]
        arguments.json.write_text(f'{head}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
