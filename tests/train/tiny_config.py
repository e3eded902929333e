"""A configuration that trains in seconds."""

TINY = {
    "seed": 5,
    "data": {"image_size": 16, "dataset": {"name": "phantom", "length": 10}},
    "model": {
        "backbone": {
            "name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1, "stem_stride": 1,
            "dropout": 0.1,
        },
        "block": {"name": "mss", "state": 4, "expand": 1},
    },
    "diffusion": {"timesteps": 100},
    "train": {
        "steps": 6, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 3,
        "schedule": "cosine", "checkpoint_every": 1000, "sample_every": 0, "bound_images": 0,
    },
    "sample": {"steps": 2, "count": 4},
}  # fmt: skip
