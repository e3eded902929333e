"""Sampling from an exported file; needs numpy and ONNX Runtime, and nothing else.

``python -m ssmdiff_export.runtime`` is its command. ``ssmdiff`` is imported for its streams, orders
and errors, which need numpy alone.
"""

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.files import FileReport, check_model_file
from ssmdiff_export.runtime.sampler import OnnxSampler

__all__ = ["FileReport", "ModelCard", "OnnxSampler", "check_model_file"]
