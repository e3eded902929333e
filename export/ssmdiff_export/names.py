"""The names by which graphs, libraries and plugins know the scan. Imports nothing heavy."""

from typing import Literal

ScanBody = Literal["scan", "chunked"]
"""How the scan is computed where our operator is not installed."""

DOMAIN = "ssmdiff"
DOMAIN_VERSION = 1
EULER = "SelectiveScan"
ZOH = "SelectiveScanZoh"
OPERATORS = {"euler": EULER, "zoh": ZOH}
ATTRIBUTES: dict[str, str | int] = {"plugin_namespace": "ssmdiff", "plugin_version": "1", "aot": 1}
"""By these TensorRT finds our plugin; elsewhere they mean nothing."""
INPUTS = ("u", "delta", "A", "B", "C", "order")
OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22}
"""Of ONNX, by precision. 20 is read by every runtime of the last years; before 22 convolutions have
no bfloat16."""
METADATA = "ssmdiff"
"""The key of ``metadata_props`` under which the model card stands."""
