"""The scan as custom ops for ONNX Runtime on a CPU: one C++ file, compiled on demand."""
