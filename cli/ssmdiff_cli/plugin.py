"""The command line's own commands: they take the road that everyone's take."""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "sample",
        "ssmdiff_cli.sample:sample",
        "draw images from a run or an exported file",
        examples=(
            "ssmdiff sample runs/mine --n 64 --steps 100 --out drawn",
            "ssmdiff sample runs/mine --scheduler dpmpp --steps 20 --seed 7 --format npy",
            "ssmdiff sample mine.onnx --n 16 --out from_file",
            "ssmdiff sample runs/mine --label lesion --guidance 2 --out lesions",
        ),
    )
    yield Command(
        "translate",
        "ssmdiff_cli.translate:translate",
        "make an image of each image: another modality, another resolution, another drawing",
        examples=(
            "ssmdiff translate runs/t1-to-t2 t1_images --out t2_drawn",
            "ssmdiff translate runs/mine sketches --strength 0.6 --out redrawn",
        ),
    )
    yield Command(
        "inpaint",
        "ssmdiff_cli.translate:inpaint",
        "draw the masked part of images, and keep the rest",
        examples=(
            "ssmdiff inpaint runs/mine images --mask masks --out filled",
            "ssmdiff inpaint mine.onnx scan.png --mask hole.png --repeats 10 --out filled",
        ),
    )
    yield Command(
        "plugins",
        "ssmdiff_cli.plugins:app",
        "the plugins of this environment",
        examples=(
            "ssmdiff plugins list",
            "ssmdiff plugins info regenerate",
            "ssmdiff plugins check mamba --set state=8",
            "ssmdiff plugins new my-scan",
            "ssmdiff plugins new my-block --kind block --out packages/my-block",
        ),
    )
    yield Command(
        "checkpoint",
        "ssmdiff_cli.checkpoint:app",
        "whether the checkpoints of a run are whole",
        examples=("ssmdiff checkpoint verify runs/mine",),
    )
    yield Command(
        "scans",
        "ssmdiff_cli.scans:app",
        "scan orderings: list, show, check",
        examples=(
            "ssmdiff scans list",
            "ssmdiff scans show hilbert --grid 16x16 --out hilbert.png",
            "ssmdiff scans show local --set block=2 --ascii",
            "ssmdiff scans check hilbert",
        ),
    )
    yield Command(
        "config",
        "ssmdiff_cli.config:app",
        "configurations, every option shown",
        examples=(
            "ssmdiff config show --preset paper-128",
            "ssmdiff config show --config mine.toml --set train.steps=1000 --json",
        ),
    )
    yield Command(
        "doctor",
        "ssmdiff_cli.doctor:doctor",
        "check this machine and its kernels",
        examples=("ssmdiff doctor", "ssmdiff doctor --json"),
    )
    yield Command(
        "cite",
        "ssmdiff_cli.cite:cite",
        "BibTeX for ssmdiff, for components or for a run",
        examples=("ssmdiff cite", "ssmdiff cite regenerate mamba", "ssmdiff cite runs/mine"),
    )
