"""``ssmdiff export RUN --to triton-server``: a model repository for NVIDIA Triton Inference Server.

    DIR/README.md                 how to start the server and call the model
    DIR/client.py, card.json      draw images from it: the loop over the steps
    DIR/<name>/config.pbtxt       inputs, outputs, batching, warm-up
    DIR/<name>/1/model.onnx       version 1; model.plan for the backend tensorrt
    DIR/<name>/warmup/order_0     one order for each random scan, as the warm-up sends it

The server makes one call of the network; the loop over the steps runs in the client, which is
:mod:`ssmdiff_export.runtime.served`.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from ssmdiff import ConfigError, ExportRequest, ExportResult, ImageModel

from ssmdiff_export.model_file import BATCH, BatchSizes, need_onnx
from ssmdiff_export.runtime.card import METADATA, ScanBody

Count = Annotated[int, Field(ge=1, le=64)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
VERSION = "1"
QUEUE_DELAY_US = 1000
CARD, CLIENT = "card.json", "client.py"
_CLIENT = """\
\"\"\"Draws images of the model that the server has, with numpy and ssmdiff alone.

    python client.py --url http://localhost:8000 --n 16 --seed 0 --out images.npy
\"\"\"

from pathlib import Path

from ssmdiff_export.runtime.served import main

if __name__ == "__main__":
    main(Path(__file__).with_name("card.json"), model={name}, batch_size={batch})
"""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the graph; -1 is the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]

    @property
    def batched(self) -> bool:
        return self.dims[:1] == (-1,)


class TritonServerExporter:
    """Writes the repository.

    Args:
        backend: ``onnxruntime``, or ``tensorrt`` for an engine of this machine.
        model_name: As clients call it.
        instances: Copies of the model on each device.
        device: Where they run: ``auto``, ``gpu`` or ``cpu``.
        batch: Fewest, usual and most images of a call.
        body: How the scan is computed, as for the target ``onnx``; ``scan`` by default. An engine
            has none.
    """

    suffixes: tuple[str, ...] = ()

    def __init__(
        self,
        backend: Literal["onnxruntime", "tensorrt"] = "onnxruntime",
        model_name: str = "ssmdiff",
        instances: Count = 1,
        device: Literal["auto", "gpu", "cpu"] = "auto",
        batch: BatchSizes = BATCH,
        body: ScanBody | None = None,
    ) -> None:
        if not _NAME.fullmatch(model_name):
            raise ConfigError(
                f"the model's name {model_name!r} is no folder's name; "
                "expected letters, digits, - and _"
            )
        if backend == "tensorrt" and device == "cpu":
            raise ConfigError("a TensorRT engine runs on a GPU; choose device auto or gpu")
        if backend == "tensorrt" and body is not None:
            raise ConfigError("body is of an ONNX file, and the backend tensorrt serves an engine")
        self.backend, self.name = backend, model_name
        self.instances, self.device = instances, device
        self.batch, self.body = batch, body or "scan"

    def export(self, request: ExportRequest) -> ExportResult:
        """Export the model, compared with torch as ever, and describe it to the server.

        Raises:
            ConfigError: The folder is there already.
            ExportError: The model cannot be exported; nothing is written.
        """
        need_onnx()
        from ssmdiff_export.generators import refuse_generator
        from ssmdiff_export.onnx_export import export_onnx
        from ssmdiff_export.verify import draft_folder

        self._refuse_to_replace(request.out, request.overwrite)
        refuse_generator(request.run, "triton-server")
        with draft_folder(request.out) as folder:
            draft = folder / request.out.name
            version = draft / self.name / VERSION
            version.mkdir(parents=True)
            model = version / "model.onnx"
            lines: tuple[str, ...]
            if self.backend == "tensorrt":
                model, lines = self._build_engine(request, folder, version)
            else:
                report = export_onnx(
                    request.run,
                    model,
                    precision=request.precision,
                    body=self.body,
                    verify=request.verify,
                    progress=request.progress,
                )
                lines = report.lines[1:]
            inputs, outputs = interface(model)
            self._write_texts(draft, request, inputs, outputs)
            (draft / CARD).write_bytes(_card_of(model))
            if self.backend == "tensorrt":
                model.unlink()
            if request.out.exists():
                shutil.rmtree(request.out)
            draft.replace(request.out)
        files = tuple(sorted(p for p in request.out.rglob("*") if p.is_file()))
        summary = f"model repository: {request.out}, model {self.name}, backend {self.backend}"
        return ExportResult(files, (summary, *lines))

    def recognises(self, path: Path) -> bool:
        """Whether it is a folder with a model as the server reads it."""
        return path.is_dir() and any(path.glob("*/config.pbtxt"))

    def open(self, path: Path) -> ImageModel:
        """Refused: a repository is served.

        Raises:
            ConfigError: Always, with what to sample from.
        """
        models = sorted(path.glob(f"*/{VERSION}/model.*"))
        instead = f"; sample from {models[0]}" if models else ""
        raise ConfigError(
            f"{path} is a model repository, which NVIDIA Triton Inference Server serves{instead}"
        )

    def _refuse_to_replace(self, out: Path, overwrite: bool) -> None:
        if not out.exists():
            return
        own = {"README.md", CARD, CLIENT, self.name}
        ours = out.is_dir() and {p.name for p in out.iterdir()} <= own
        if not ours:
            raise ConfigError(f"{out} holds something else; choose a new folder for --out")
        if any(out.iterdir()) and not overwrite:
            raise ConfigError(f"{out} is there already; choose another --out, or give --overwrite")

    def _build_engine(
        self, request: ExportRequest, folder: Path, version: Path
    ) -> tuple[Path, tuple[str, ...]]:
        """``model.plan`` in its place, and the ONNX file that it was built from, to read."""
        from ssmdiff_export.tensorrt.cache import EngineCache
        from ssmdiff_export.tensorrt.device import Cuda
        from ssmdiff_export.tensorrt.exporter import describe, make_engine

        cache = EngineCache()
        made = make_engine(
            request.run,
            folder,
            Cuda(),
            cache,
            precision=request.precision,
            batch=self.batch,
            verify=request.verify,
            progress=request.progress,
        )
        plan = version / "model.plan"
        plan.write_bytes(made.engine.plan)
        return folder / "model.onnx", tuple(describe(made, plan, cache)[1:])

    def _write_texts(
        self,
        draft: Path,
        request: ExportRequest,
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
    ) -> None:
        from ssmdiff_export.tracing import GraphInputs

        model = draft / self.name
        orders = GraphInputs.of(request.run)
        arrays = orders.arrays(orders.plan.draw(0))
        if arrays:
            (model / "warmup").mkdir()
        for name, array in arrays.items():
            (model / "warmup" / name).write_bytes(array.astype("<i4").tobytes())
        text = self.config(inputs, outputs, self.batch)
        (model / "config.pbtxt").write_text(text, encoding="utf-8")
        (draft / "README.md").write_text(self.readme(inputs, outputs), encoding="utf-8")
        client = _CLIENT.format(name=_quoted(self.name), batch=self.batch[1])
        (draft / CLIENT).write_text(client, encoding="utf-8")

    def config(
        self, inputs: list[TensorSpec], outputs: list[TensorSpec], batch: tuple[int, int, int]
    ) -> str:
        """The text of config.pbtxt.

        Orders are (K, L), one for the whole batch, and a server that batches expects every input
        to have the batch first. So a model with random orders is served without the server's
        batching (``max_batch_size: 0``, all axes written out); clients send whole batches.
        """
        batching = all(spec.batched for spec in inputs)
        lines = [
            f"name: {_quoted(self.name)}",
            f"backend: {_quoted(self.backend)}",
            f"max_batch_size: {batch[2] if batching else 0}",
        ]
        for field, specs in (("input", inputs), ("output", outputs)):
            for spec in specs:
                lines += [f"{field} {{", *_indented(_tensor(spec, batching)), "}"]
        if batching:
            lines += [
                "dynamic_batching {",
                f"  preferred_batch_size: [ {batch[1]} ]",
                f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
                "}",
            ]
        lines += [
            "instance_group {",
            f"  count: {self.instances}",
            f"  kind: KIND_{self.device.upper()}",
            "}",
            "version_policy { latest { num_versions: 1 } }",
        ]
        for size in sorted({batch[0], batch[1]}):
            lines += ["model_warmup {", *_indented(_warmup(inputs, size, batching)), "}"]
        return "\n".join(lines) + "\n"

    def readme(self, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> str:
        """How to start the server, and one call of the network."""
        batching = all(spec.batched for spec in inputs)

        def shape(spec: TensorSpec) -> list[int]:
            dims = [1 if dim == -1 else dim for dim in spec.dims]
            return [1, 1] if batching and len(dims) == 1 else dims

        body = {
            "inputs": [
                {
                    "name": spec.name,
                    "datatype": spec.data_type.removeprefix("TYPE_"),
                    "shape": shape(spec),
                }
                for spec in inputs
            ],
            "outputs": [{"name": spec.name} for spec in outputs],
        }
        orders = [spec.name for spec in inputs if not spec.batched]
        about_orders = (
            f"\n{', '.join(orders)}: the visiting orders of this step, (K, L), the same for all "
            "images of the\ncall. Draw new ones at every step, as `ssmdiff_export.runtime.sampler` "
            "does; an entry `-1 - token` starts\nthe state anew. The server does not check them: "
            "each row must visit every token once.\n"
            if orders
            else ""
        )
        needs = (
            "\nmodel.plan runs with the TensorRT version, GPU and driver that built it, and with "
            "no other.\n"
            if self.backend == "tensorrt"
            else ""
        )
        return (
            f"# {self.name}\n\n"
            "One call predicts the noise (or what the model was trained for) of a batch; sampling "
            "is a loop of such\ncalls in the client.\n\n"
            "```\ntritonserver --model-repository=THIS_FOLDER\n"
            "python client.py --url http://localhost:8000 --n 16 --seed 0 --out images.npy\n```\n\n"
            "client.py needs numpy and ssmdiff, and card.json beside it; its images are those of "
            "the file. For a\nclient of your own, one call is\n\n```\n"
            f"curl -X POST localhost:8000/v2/models/{self.name}/infer -d @request.json\n```\n\n"
            "with a list of numbers as `data` of each input in request.json:\n\n"
            f"```json\n{json.dumps(body, indent=2)}\n```\n{about_orders}{needs}"
        )


_TYPES = {1: "TYPE_FP32", 6: "TYPE_INT32", 7: "TYPE_INT64"}
"""ONNX's number of a type -> the name in model_config.proto."""


def interface(model: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of an ONNX file, without its initializers."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}

    def spec(value: Any) -> TensorSpec:
        tensor = value.type.tensor_type
        dims = tuple(
            dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1
            for dim in tensor.shape.dim
        )
        return TensorSpec(value.name, _TYPES[tensor.elem_type], dims)

    inputs = [spec(value) for value in graph.input if value.name not in constants]
    return inputs, [spec(value) for value in graph.output]


def _card_of(model: Path) -> bytes:
    """What an ONNX file of ours says about itself."""
    import onnx

    found = onnx.load(model, load_external_data=False).metadata_props
    card: str = next(entry.value for entry in found if entry.key == METADATA)
    return card.encode()


def _tensor(spec: TensorSpec, batching: bool) -> list[str]:
    dims = spec.dims[1:] if batching else spec.dims
    lines = [f"name: {_quoted(spec.name)}", f"data_type: {spec.data_type}"]
    if dims:
        return [*lines, f"dims: {_list(dims)}"]
    # (batch,): the protocol has no empty dims; a request sends (batch, 1), the model gets (batch,).
    return [*lines, "dims: [ 1 ]", "reshape { shape: [ ] }"]


def _warmup(inputs: list[TensorSpec], size: int, batching: bool) -> list[str]:
    lines = [f"name: {_quoted(f'batch of {size}')}", f"batch_size: {size if batching else 1}"]
    for spec in inputs:
        dims = tuple(size if dim == -1 else dim for dim in spec.dims)
        dims = (dims[1:] or (1,)) if batching else dims
        if not spec.batched:
            data = f"input_data_file: {_quoted(spec.name)}"
        else:
            data = "random_data: true" if spec.name == "x" else "zero_data: true"
        value = [f"data_type: {spec.data_type}", f"dims: {_list(dims)}", data]
        lines += ["inputs {", f"  key: {_quoted(spec.name)}", "  value {"]
        lines += [f"    {line}" for line in value] + ["  }", "}"]
    return lines


def _list(values: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, values))} ]"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
