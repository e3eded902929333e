"""Noise schedulers: those of the diffusers library behind ssmdiff's protocol."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_HOME = "ssmdiff_schedulers.schedulers"


@hookimpl
def ssmdiff_schedulers() -> Iterable[Component]:
    yield Component(
        "ddpm", f"{_HOME}:ddpm", "ancestral sampling", "Ho et al., DDPM, arXiv:2006.11239"
    )
    yield Component(
        "ddim", f"{_HOME}:ddim", "deterministic at eta 0", "Song et al., DDIM, arXiv:2010.02502"
    )
    yield Component(
        "dpmpp", f"{_HOME}:dpmpp", "DPM-Solver++ multistep", "Lu et al., arXiv:2211.01095"
    )
    yield Component(
        "unipc", f"{_HOME}:unipc", "predictor-corrector", "Zhao et al., UniPC, arXiv:2302.04867"
    )
    yield Component(
        "euler", f"{_HOME}:euler", "Euler steps in sigma", "Karras et al., arXiv:2206.00364"
    )
    yield Component(
        "heun", f"{_HOME}:heun", "Heun, two calls a step", "Karras et al., arXiv:2206.00364"
    )
