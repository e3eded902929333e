"""Scan orderings."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_VIM = "Zhu et al., Vision Mamba, arXiv:2401.09417"
_VMAMBA = "Liu et al., VMamba: Visual State Space Model, arXiv:2401.10166"
_VMDDPM = "Ju and Zhou, VM-DDPM, arXiv:2405.05667"


@hookimpl
def ssmdiff_scans() -> Iterable[Component]:
    yield Component("raster", "ssmdiff_scans.fixed:Raster", "row by row, one way", _VIM)
    yield Component(
        "bidirectional", "ssmdiff_scans.fixed:Bidirectional", "raster and its reverse", _VIM
    )
    yield Component(
        "cross", "ssmdiff_scans.fixed:Cross", "every axis order and its reverse", _VMAMBA
    )
    yield Component(
        "regenerate",
        "ssmdiff_scans.regenerate:Regenerate",
        "a fresh shuffle of the patches before each S6 call, then a base scan",
        _VMDDPM,
    )
