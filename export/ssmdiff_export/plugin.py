"""The command ``export`` and its targets."""

from collections.abc import Iterable

from ssmdiff import Command, Component, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "export",
        "ssmdiff_export.command:export",
        "write a trained model for other runtimes",
        job="ssmdiff_export.command:job",
        examples=(
            "ssmdiff export runs/mine --out mine.onnx",
            "ssmdiff export runs/mine --precision fp16 --body chunked --out small.onnx",
            "ssmdiff export runs/mine --to pt2 --out mine.pt2",
        ),
    )


@hookimpl
def ssmdiff_exporters() -> Iterable[Component]:
    yield Component(
        "onnx",
        "ssmdiff_export.model_file:OnnxExporter",
        "one ONNX file: any runtime, batch dynamic, random orders as inputs",
    )
    yield Component(
        "pt2",
        "ssmdiff_export.model_file:Pt2Exporter",
        "a torch.export archive, for PyTorch without the code of the model",
    )
    yield Component(
        "tensorrt",
        "ssmdiff_export.tensorrt.exporter:TensorRTExporter",
        "a TensorRT engine for this machine's GPU",
    )
    yield Component(
        "tensorrt-rtx",
        "ssmdiff_export.tensorrt.exporter:RtxExporter",
        "a TensorRT for RTX engine for cards by their capability, built with a GPU or without",
    )
    yield Component(
        "triton-server",
        "ssmdiff_export.triton_server:TritonServerExporter",
        "a model repository for NVIDIA Triton Inference Server",
    )
