"""Weights & Biases: a callback that a run asks for by name."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_callbacks() -> Iterable[Component]:
    yield Component("wandb", "ssmdiff_wandb.callback:WandbCallback", "Weights & Biases, or offline")
