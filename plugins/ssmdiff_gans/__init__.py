"""GANs: a generator trained against a discriminator; DCGAN, SAGAN and U-Net GAN."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_GAN = "Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, arXiv:1406.2661"
_DCGAN = "Radford et al., Unsupervised Representation Learning with DCGANs, 2016, arXiv:1511.06434"
_SAGAN = "Zhang et al., Self-Attention Generative Adversarial Networks, 2019, arXiv:1805.08318"
_UNET_GAN = "Schonfeld et al., A U-Net Based Discriminator for GANs, CVPR 2020, arXiv:2002.12655"
_HINGE = "Lim and Ye, Geometric GAN, 2017, arXiv:1705.02894"


@hookimpl
def ssmdiff_methods() -> Iterable[Component]:
    yield Component(
        "gan", "ssmdiff_gans.method:GanMethod", "a generator against a discriminator", _GAN
    )


@hookimpl
def ssmdiff_gans() -> Iterable[Component]:
    yield Component("dcgan", "ssmdiff_gans.dcgan:DCGAN", "convolutions with batch norm", _DCGAN)
    yield Component(
        "sagan", "ssmdiff_gans.sagan:SAGAN", "residual blocks with self-attention", _SAGAN
    )
    yield Component(
        "unetgan",
        "ssmdiff_gans.unetgan:UNetGAN",
        "BigGAN's generator against a UNet that judges each pixel",
        _UNET_GAN,
    )


@hookimpl
def ssmdiff_losses() -> Iterable[Component]:
    yield Component("bce", "ssmdiff_gans.losses:CrossEntropy", "binary cross entropy", _GAN)
    yield Component("hinge", "ssmdiff_gans.losses:Hinge", "the hinge loss", _HINGE)
