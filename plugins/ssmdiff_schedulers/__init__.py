"""Noise schedulers of the diffusers library behind ssmdiff's protocol; ours are in the core."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_schedulers() -> Iterable[Component]:
    yield Component(
        "diffusers",
        "ssmdiff_schedulers.adapter:DiffusersScheduler",
        "any scheduler of the diffusers library, by its class",
        "von Platen et al., Diffusers, https://github.com/huggingface/diffusers",
    )
