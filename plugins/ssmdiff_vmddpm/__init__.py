"""VM-DDPM: the cross-scan module, the MSSBlock and the UNet that is built from them."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_CITE = "Ju and Zhou, VM-DDPM: Vision Mamba Diffusion for Medical Image Synthesis, arXiv:2405.05667"

_VMUNET = (
    "Ruan and Xiang, VM-UNet: Vision Mamba UNet for Medical Image Segmentation, arXiv:2402.02491"
)
_VMAMBA = "Liu et al., VMamba: Visual State Space Model, NeurIPS 2024, arXiv:2401.10166"


@hookimpl
def ssmdiff_blocks() -> Iterable[Component]:
    yield Component(
        "mss", "ssmdiff_vmddpm.blocks:MSSBlock", "multi-level SSM and CNN block of VM-DDPM", _CITE
    )
    yield Component(
        "vss", "ssmdiff_vmddpm.blocks:VSSBlock", "the SS2D block of VMamba alone", _VMAMBA
    )
    yield Component(
        "conv", "ssmdiff_vmddpm.blocks:ConvBlock", "convolutions only, the CNN of the ablation"
    )


@hookimpl
def ssmdiff_backbones() -> Iterable[Component]:
    yield Component(
        "vmddpm", "ssmdiff_vmddpm.unet:VMDDPMUNet", "the SSM-CNN hybrid UNet of VM-DDPM", _CITE
    )
    yield Component(
        "vmunet",
        "ssmdiff_vmddpm.vmunet:VMUNet",
        "the UNet of VM-DDPM with blocks alone for layers; VM-UNet's form with block vss",
        _VMUNET,
    )
