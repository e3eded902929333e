"""The isotropic backbone: a stack of any block on patches, in the form of DiT, DiS and ZigMa."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_CITE = (
    "Peebles and Xie, Scalable Diffusion Models with Transformers, ICCV 2023, arXiv:2212.09748; "
    "Fei et al., Scalable Diffusion Models with State Space Backbone, arXiv:2402.05608; "
    "Hu et al., ZigMa: A DiT-style Zigzag Mamba Diffusion Model, ECCV 2024, arXiv:2403.13802; "
    "Bao et al., All are Worth Words: A ViT Backbone for Diffusion Models, CVPR 2023, "
    "arXiv:2209.12152"
)


@hookimpl
def ssmdiff_backbones() -> Iterable[Component]:
    yield Component(
        "isotropic",
        "ssmdiff_isotropic.stack:Isotropic",
        "patches through a stack of one block, adaptive layer norm (DiT, DiS, ZigMa)",
        _CITE,
    )
