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
