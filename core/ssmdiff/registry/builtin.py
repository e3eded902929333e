"""What the core itself contributes: the reference kernel, diffusion and its noise schedulers."""

from collections.abc import Iterable

from ssmdiff.registry.component import Component
from ssmdiff.registry.hookspecs import hookimpl


@hookimpl
def ssmdiff_kernels() -> Iterable[Component]:
    yield Component("torch", "ssmdiff.ops.reference:TorchKernel", "plain reference, runs anywhere")


@hookimpl
def ssmdiff_methods() -> Iterable[Component]:
    yield Component(
        "diffusion",
        "ssmdiff.runs.diffusion_method:DiffusionMethod",
        "a backbone predicts the noise of an image",
        "Ho et al., DDPM, arXiv:2006.11239",
    )


_FLOW = "Liu et al., Flow Straight and Fast, ICLR 2023, arXiv:2209.03003"
_SCHEDULERS = "ssmdiff.diffusion.schedulers"


@hookimpl
def ssmdiff_schedulers() -> Iterable[Component]:
    yield Component(
        "ddpm", f"{_SCHEDULERS}:DDPM", "ancestral sampling", "Ho et al., DDPM, arXiv:2006.11239"
    )
    yield Component(
        "ddim", f"{_SCHEDULERS}:DDIM", "deterministic at eta 0", "Song et al., arXiv:2010.02502"
    )
    yield Component(
        "dpmpp", f"{_SCHEDULERS}:DPMpp", "DPM-Solver++ multistep", "Lu et al., arXiv:2211.01095"
    )
    yield Component(
        "unipc", f"{_SCHEDULERS}:UniPC", "predictor-corrector", "Zhao et al., arXiv:2302.04867"
    )
    yield Component(
        "euler", f"{_SCHEDULERS}:Euler", "Euler steps in sigma", "Karras et al., arXiv:2206.00364"
    )
    yield Component(
        "heun", f"{_SCHEDULERS}:Heun", "Heun, two calls a step", "Karras et al., arXiv:2206.00364"
    )
    flows = "ssmdiff.diffusion.flow_schedulers"
    yield Component("flow-euler", f"{flows}:FlowEuler", "Euler along a flow", _FLOW)
    yield Component("flow-heun", f"{flows}:FlowHeun", "Heun along a flow, two calls a step", _FLOW)
    yield Component(
        "flow-adams",
        f"{flows}:FlowAdams",
        "Adams' multistep along a flow",
        "Hairer et al., Solving Ordinary Differential Equations I, Springer 1993; " + _FLOW,
    )
