"""The convolutional UNet with attention, the network of DDPM, from the diffusers library."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_backbones() -> Iterable[Component]:
    yield Component(
        "unet",
        "ssmdiff_unet.unet:DDPMUNet",
        "the convolutional UNet with attention of DDPM; takes no block and no scan",
        "Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020, arXiv:2006.11239; "
        "the network of von Platen et al., Diffusers, https://github.com/huggingface/diffusers",
    )
