"""The forward process, and the way back from noise to images."""
