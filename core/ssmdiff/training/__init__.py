"""Training: one loop, driven by Hugging Face Accelerate, counted in images."""

from ssmdiff.training.loop import train

__all__ = ["train"]
