"""Feature networks and metrics: how good images are, how varied, and how new."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_FID = "Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017, arXiv:1706.08500"
_KID = "Binkowski et al., Demystifying MMD GANs, ICLR 2018, arXiv:1801.01401"
_PRDC = "Naeem et al., Reliable Fidelity and Diversity Metrics, ICML 2020, arXiv:2002.09797"
_COPIES = "Dar et al., Unconditional Latent Diffusion Models Memorize Patient Imaging Data, 2024, arXiv:2402.01054"  # noqa: E501
_RADIOLOGY = "Mei et al., RadImageNet, Radiology: AI 4(5), 2022, doi:10.1148/ryai.210315"
_DINO = "Oquab et al., DINOv2: Learning Robust Visual Features, TMLR 2024, arXiv:2304.07193"
_SSIM = "Wang et al., Multiscale Structural Similarity, Asilomar 2003"
_PAIRED = "Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861"  # noqa: E501
_USE = "Esteban et al., Real-valued (Medical) Time Series Generation, 2017, arXiv:1706.02633"
_AUTHENTIC = "Alaa et al., How Faithful is your Synthetic Data?, ICML 2022, arXiv:2102.08921"


@hookimpl
def ssmdiff_features() -> Iterable[Component]:
    yield Component(
        "texture", "ssmdiff_metrics.texture:Texture", "grey levels, co-occurrence, wavelets"
    )
    yield Component(
        "contrastive",
        "ssmdiff_metrics.contrastive:Contrastive",
        "an encoder trained on the reference to tell images apart",
        _COPIES,
    )
    yield Component("pixels", "ssmdiff_metrics.pixels:Pixels", "principal components of the pixels")
    yield Component(
        "inception",
        "ssmdiff_metrics.inception:Inception",
        "Inception of the FID, from its file",
        _FID,
    )
    yield Component(
        "dinov2",
        "ssmdiff_metrics.dinov2:Dinov2",
        "the class token of DINOv2's large network, from its file",
        _DINO,
    )
    yield Component(
        "radimagenet",
        "ssmdiff_metrics.radimagenet:RadImageNet",
        "a ResNet-50 trained on radiological images, from its file",
        _RADIOLOGY,
    )


@hookimpl
def ssmdiff_metrics() -> Iterable[Component]:
    yield Component(
        "frechet", "ssmdiff_metrics.metrics:FrechetDistance", "Frechet distance of features", _FID
    )
    yield Component(
        "mmd", "ssmdiff_metrics.metrics:KernelDistance", "kernel distance of features (KID)", _KID
    )
    yield Component(
        "manifold",
        "ssmdiff_metrics.metrics:Manifold",
        "precision, recall, density and coverage",
        _PRDC,
    )
    yield Component(
        "ms-ssim",
        "ssmdiff_metrics.metrics:MultiScaleSimilarity",
        "how alike pairs of images are",
        _SSIM,
    )
    yield Component(
        "copies", "ssmdiff_metrics.metrics:Copies", "copies of training images", _COPIES
    )
    yield Component(
        "nearness",
        "ssmdiff_metrics.metrics:Nearness",
        "nearer to training than to images never seen?",
        _AUTHENTIC,
    )
    yield Component(
        "paired",
        "ssmdiff_metrics.paired:Paired",
        "PSNR, SSIM and mean absolute error to targets",
        _PAIRED,
    )
    yield Component(
        "classifier",
        "ssmdiff_metrics.use:Classifier",
        "trained on real images, on samples, on both; tested on held-out images",
        _USE,
    )
