"""Export of trained models, and sampling from the files.

The plugin is :mod:`ssmdiff_export.plugin`; nothing is imported here, because
:mod:`ssmdiff_export.runtime` samples where numpy and ONNX Runtime alone are installed.
"""
