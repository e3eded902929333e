"""Training: one loop, driven by Hugging Face Accelerate, counted in images."""
