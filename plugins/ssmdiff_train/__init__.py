"""Training: one loop, driven by Hugging Face Accelerate, counted in images."""

from collections.abc import Iterable

from ssmdiff import Command, Component, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "train",
        "ssmdiff_train.command:train",
        "train a model into a folder, or go on with one",
        job="ssmdiff_train.job:train",
        examples=(
            "ssmdiff train --scan hilbert --steps 1000",
            "ssmdiff train --data images --image-size 64 --out runs/mine",
            "ssmdiff train --gan sagan --data images --image-size 64",
            "ssmdiff train --preset paper-128 --data images --set model.scan.base=cross",
            "ssmdiff train --out runs/mine --resume --steps 20000",
            "ssmdiff train --data images --init-from runs/heads --lr 3e-4 --steps 500",
        ),
    )


@hookimpl
def ssmdiff_callbacks() -> Iterable[Component]:
    yield Component(
        "tensorboard", "ssmdiff_train.callbacks:TensorBoard", "event files in the run's folder"
    )
