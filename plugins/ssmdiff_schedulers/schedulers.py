"""The noise schedulers of the diffusers library, set up for ssmdiff.

Each factory takes the betas of the forward process and what the network predicts, and returns a
scheduler of the protocol ``NoiseScheduler``. The betas are handed over as
numbers, so that every sampler walks the very process that was trained on. Timesteps are spaced
"trailing": the first is T - 1, where training saw pure noise (Lin et al., arXiv:2305.08891).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler, DDPMSchedulerOutput
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from pydantic import Field
from torch import Tensor


def _process(betas: np.ndarray, prediction_type: str) -> dict[str, Any]:
    return {
        "num_train_timesteps": len(betas),
        "trained_betas": betas.tolist(),
        "prediction_type": prediction_type,
        "timestep_spacing": "trailing",
    }


class GivenNoiseDDPM(DDPMScheduler):
    """DDPM whose steps take their noise instead of drawing it.

    The library draws inside ``step`` from torch's generators, which an exported model that is
    sampled without torch cannot follow.
    """

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: Any, sample: Tensor, noise: Tensor
    ) -> DDPMSchedulerOutput:
        """x_{t-1} = mean of q(x_{t-1} | x_t, x_0) + sigma_t noise, eq. 6 and 7 of Ho et al.

        Args:
            model_output: What the network predicts, (B, C, *image_size).
            timestep: t, one of ``timesteps``.
            sample: x_t.
            noise: Standard normal, in the shape of the sample.
        """
        t, before = int(timestep), int(self.previous_timestep(timestep))
        now = self.alphas_cumprod[t]
        then = self.alphas_cumprod[before] if before >= 0 else torch.ones(())
        if self.config.prediction_type == "epsilon":
            x_0 = (sample - (1 - now).sqrt() * model_output) / now.sqrt()
        elif self.config.prediction_type == "v_prediction":
            x_0 = now.sqrt() * sample - (1 - now).sqrt() * model_output
        else:
            x_0 = model_output
        if self.config.clip_sample:
            x_0 = x_0.clamp(-1, 1)
        alpha = now / then
        mean = (then.sqrt() * (1 - alpha) * x_0 + alpha.sqrt() * (1 - then) * sample) / (1 - now)
        if t > 0:
            mean = mean + self._get_variance(timestep).sqrt() * noise
        return DDPMSchedulerOutput(prev_sample=mean, pred_original_sample=x_0)


def ddpm(
    betas: np.ndarray,
    prediction_type: str,
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
    clip_sample: bool = True,
) -> GivenNoiseDDPM:
    """Ancestral sampling, algorithm 2 of Ho et al.

    Args:
        betas: (T,) of eq. 1.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.
        variance: beta_tilde (``fixed_small``) or beta (``fixed_large``) of the reverse step.
        clip_sample: Clip the predicted x_0 to -1 .. 1.
    """
    return GivenNoiseDDPM(
        **_process(betas, prediction_type), variance_type=variance, clip_sample=clip_sample
    )


def ddim(betas: np.ndarray, prediction_type: str, clip_sample: bool = True) -> DDIMScheduler:
    """DDIM, eq. 12 of Song et al. with eta = 0: deterministic given the first noise."""
    return DDIMScheduler(
        **_process(betas, prediction_type), clip_sample=clip_sample, set_alpha_to_one=True
    )


def dpmpp(
    betas: np.ndarray,
    prediction_type: str,
    order: Annotated[int, Field(ge=1, le=3)] = 2,
    karras: bool = False,
) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ (multistep). ``karras`` spaces the steps in sigma as Karras et al. do."""
    return DPMSolverMultistepScheduler(
        **_process(betas, prediction_type),
        solver_order=order,
        use_karras_sigmas=karras,
        algorithm_type="dpmsolver++",
    )


def unipc(
    betas: np.ndarray,
    prediction_type: str,
    order: Annotated[int, Field(ge=1, le=3)] = 2,
    karras: bool = False,
) -> UniPCMultistepScheduler:
    """UniPC: a predictor and a corrector of the given order, one network call a step."""
    return UniPCMultistepScheduler(
        **_process(betas, prediction_type), solver_order=order, use_karras_sigmas=karras
    )


def euler(betas: np.ndarray, prediction_type: str, karras: bool = False) -> EulerDiscreteScheduler:
    """Euler steps of the probability flow in sigma, algorithm 1 of Karras et al."""
    return EulerDiscreteScheduler(**_process(betas, prediction_type), use_karras_sigmas=karras)


def heun(betas: np.ndarray, prediction_type: str, karras: bool = False) -> HeunDiscreteScheduler:
    """Heun's second-order steps, algorithm 2 of Karras et al.: two network calls a step."""
    return HeunDiscreteScheduler(**_process(betas, prediction_type), use_karras_sigmas=karras)
