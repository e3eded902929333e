"""NVIDIA TensorRT: build an engine from an exported model, keep it, run it.

TensorRT itself is imported by the functions that need it and by no module of this package.
"""
