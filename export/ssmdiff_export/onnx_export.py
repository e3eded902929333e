"""A trained model as one ONNX file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import FunctionProto, ModelProto, helper
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from ssmdiff import ExportError, ExportPrecision, Run, __version__

from ssmdiff_export import function, fused, fusing, linear_attention
from ssmdiff_export.runtime.card import (
    DOMAIN,
    DOMAIN_VERSION,
    FUSED,
    METADATA,
    OPSETS,
    ExternalData,
    ScanBody,
)
from ssmdiff_export.tracing import BATCH, GraphInputs, card, first_line, quiet, trace
from ssmdiff_export.verify import (
    Comparison,
    compare,
    comparison_text,
    data_file,
    draft_folder,
    onnx_predict,
    publish,
    refuse_to_replace,
    stages,
)

EXTERNAL_ABOVE = 1_000_000_000
"""Bytes of weights beyond which they get a file of their own: protobuf ends at 2 GB."""
FOLD_AT_MOST = 1 << 24
"""Elements of a constant that is computed at export: the tables of a 512 x 512 image and more."""


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how it compares with torch."""

    files: tuple[Path, ...]
    nodes: int
    bytes: int
    parity: Comparison | None
    export_s: float

    @property
    def lines(self) -> tuple[str, ...]:
        """For a person."""
        size = f"{self.nodes} nodes, {self.bytes / 1e6:.1f} MB, {self.export_s:.0f} s"
        return (f"model: {self.files[0]} ({size})", comparison_text(self.parity))


def export_onnx(
    run: Run,
    path: Path,
    *,
    precision: ExportPrecision = "fp32",
    body: ScanBody = "scan",
    verify: bool = True,
    progress: bool = False,
    overwrite: bool = False,
    external_above: int = EXTERNAL_ABOVE,
    fuse: bool = False,
) -> OnnxReport:
    """Write a run's model as an ONNX file, and compare it with torch before it is kept.

    The batch is the one dynamic axis. Inputs: ``x`` with the planes that the model is told behind
    its own channels, ``timesteps``, ``context`` (batch, M) if the model is told numbers, and
    ``order_<slot>`` for each S6 call whose scan is random. Output: ``prediction``.

    Args:
        run: What to export.
        path: The file; weights beyond ``external_above`` go into ``<path>.data`` beside it.
        precision: Of weights and activations; inputs, outputs and the scan's state are float32.
        body: How the scan is computed: by a function of our node where a runtime has no operator
            for it, or by ONNX's ``LinearAttention``.
        verify: Check the file and compare it with torch.
        progress: Show what is done.
        overwrite: Replace a file that is there.
        external_above: Bytes of weights.
        fuse: Put in the operators of :mod:`ssmdiff_export.fused` where they fit, in a float32 file.

    Raises:
        ConfigError: The file is there already.
        ExportError: The model cannot be exported, the file is no valid ONNX or it does not agree
            with torch; nothing is left behind.
    """
    refuse_to_replace(path, overwrite)
    start_s = time.perf_counter()
    with stages(progress) as stage, draft_folder(path) as folder:
        stage("tracing the model")
        interface = GraphInputs.of(run)
        program = trace(run, interface, precision, body)
        stage("translating to ONNX")
        model = _translate(program, interface, OPSETS[precision])
        fusing.simplify(model)
        if fuse and precision == "fp32" and body != "linear-attention":
            fusing.fuse(model)
        _name(model)
        stage("writing")
        draft = folder / path.name
        external = _write(model, draft, body, external_above)

        def sign(parity: Comparison | None) -> None:
            proto = onnx.load(draft, load_external_data=False)
            document = card(run, interface, precision, body, parity, external)
            helper.set_model_props(proto, {METADATA: document.to_json()})
            onnx.save(proto, draft)

        parity = None
        if verify:
            stage("checking")
            check(draft, interface)
            parity = compare(run, onnx_predict(draft, precision), precision, path.name, stage)
        sign(parity)
        files = publish(folder, path, with_data=external is not None)
    proto = onnx.load(path, load_external_data=False)
    size = sum(file.stat().st_size for file in files)
    return OnnxReport(files, len(proto.graph.node), size, parity, time.perf_counter() - start_s)


def _translate(program: Any, interface: GraphInputs, opset: int) -> ir.Model:
    """An exported program as an ONNX graph: constants computed, each stored once."""
    try:
        with quiet(), torch.no_grad():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                input_names=interface.names,
                output_names=["prediction"],
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
            assert translated is not None  # it is None for a file's name alone
            model: ir.Model = translated.model
            passes.ClearMetadataAndDocStringPass()(model)
            # Inverses of fixed orders and the like are computed here and not at every call.
            optimizer.optimize_ir(
                model,
                num_iterations=1,
                input_size_limit=FOLD_AT_MOST,
                output_size_limit=FOLD_AT_MOST,
            )
            passes.IdentityEliminationPass()(model)
            _make_contiguous(model)
            passes.DeduplicateHashedInitializersPass()(model)
            passes.RemoveUnusedOpsetsPass()(model)
            linear_attention.raise_opset(model)
    except Exception as error:  # the translator wraps what it meets in exceptions of its own
        raise ExportError(f"torch cannot translate the model to ONNX: {_cause(error)}") from error
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name in ("x", "timesteps", "context", "prediction") and value.shape is not None:
            value.shape = ir.Shape([BATCH, *value.shape[1:]])
    model.producer_name, model.producer_version = "ssmdiff", __version__
    return model


def _name(model: ir.Model) -> None:
    """Names for the nodes of our operators: scan_0, scan_1 and so on for those that scan."""
    counts: dict[str, int] = {}
    for node in model.graph:
        if node.domain == DOMAIN:
            stem = "scan" if "Scan" in node.op_type else node.op_type
            counts[stem] = counts.get(stem, -1) + 1
            node.name = f"{stem}_{counts[stem]}"


def _make_contiguous(model: ir.Model) -> None:
    """Folded transpositions are views, which the pass that finds equal tensors refuses."""
    for value in model.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is not None and not array.flags.c_contiguous:
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)


def _write(model: ir.Model, path: Path, body: str, external_above: int) -> ExternalData | None:
    """The file with its functions, and what is to be known of its weights' file if it has one."""
    values = model.graph.initializers.values()
    weights = sum(v.const_value.nbytes for v in values if v.const_value is not None)
    external = None
    if weights > external_above:
        data = data_file(path)
        ir.save(model, path, external_data=data.name)
        with data.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        external = ExternalData(data.name, data.stat().st_size, digest)
    else:
        ir.save(model, path)
    proto = onnx.load(path, load_external_data=False)
    add_functions(proto, body)
    onnx.save(proto, path)
    return external


def add_functions(proto: ModelProto, body: str) -> None:
    """Say what the scan's nodes compute, once for each operator that the graph has."""
    used = {n.op_type for n in proto.graph.node if n.domain == DOMAIN}
    (opset,) = (o.version for o in proto.opset_import if not o.domain)
    functions: dict[str, FunctionProto] = {}
    waiting = sorted(used)
    while waiting:
        name = waiting.pop(0)
        if name not in functions:
            own = name in FUSED
            make = fused.fused_function(name, opset) if own else None
            functions[name] = make or function.scan_function(name, body, opset)
            waiting += [n.op_type for n in functions[name].node if n.domain == DOMAIN]
    proto.functions.extend(functions.values())
    if used and not any(o.domain == DOMAIN for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))


def check(path: Path, interface: GraphInputs) -> None:
    """ONNX's own checks and shape inference, and what every file of ours promises.

    Raises:
        ExportError: The file is no valid ONNX, an axis besides the batch is dynamic (an order is a
            table of one grid), or the graph ignores an input.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} is no valid ONNX: {first_line(error)}") from error
    graph = onnx.load(path, load_external_data=False).graph
    for value in (*graph.input, *graph.output):
        sides = value.type.tensor_type.shape.dim
        batched = not value.name.startswith("order_")
        for axis, side in enumerate(sides):
            dynamic = side.WhichOneof("value") != "dim_value"
            if dynamic != (batched and axis == 0):
                raise ExportError(
                    f"{path.name}: axis {axis} of {value.name!r} is "
                    f"{'dynamic' if dynamic else 'fixed'}; the batch and nothing else is dynamic, "
                    "because a scan order is a table of one grid. Export once for each image size"
                )
    read = {name for node in graph.node for name in node.input}
    got = {value.name for value in graph.input}
    if got != set(interface.names) or not got <= read:
        raise ExportError(
            f"{path.name} reads the inputs {sorted(got & read)}; expected "
            f"{sorted(interface.names)}: an order was baked in"
        )


def _cause(error: BaseException) -> str:
    """The first line of what went wrong at the bottom."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
