"""Every published scan ordering, by name."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_VIM = "Zhu et al., Vision Mamba, arXiv:2401.09417"
_VMAMBA = "Liu et al., VMamba: Visual State Space Model, arXiv:2401.10166"
_VMDDPM = "Ju and Zhou, VM-DDPM, arXiv:2405.05667"
_PLAIN = "Yang et al., PlainMamba, arXiv:2403.17695"
_ZIGMA = "Hu et al., ZigMa: A DiT-style Zigzag Mamba Diffusion Model, arXiv:2403.13802"
_DIMSUM = "Phung et al., DiMSUM: Diffusion Mamba, arXiv:2411.04168"
_RSM = "Zhao et al., RS-Mamba for Large Remote Sensing Image Dense Prediction, arXiv:2404.02668"
_MORTON = "Morton, A Computer Oriented Geodetic Data Base, IBM, 1966"
_HILBERT = (
    "Hilbert, Ueber die stetige Abbildung einer Linie auf ein Flaechenstueck, Math. Ann. 38, 1891; "
    "any H x W: Cerveny, gilbert, 2018; as a scan: He et al., MambaAD, arXiv:2404.06564"
)
_LOCAL = "Huang et al., LocalMamba: Windowed Selective Scan, arXiv:2403.09338"
_DIFFMA = "Wang et al., Soft Masked Mamba Diffusion Model for CT to MRI, arXiv:2406.15910"
_MAIR = "Li et al., MaIR: Locality- and Continuity-Preserving Mamba, arXiv:2412.20066"
_EFFICIENT = "Pei et al., EfficientVMamba: Atrous Selective Scan, arXiv:2403.09977"
_PRISM = "Hsieh et al., Partial Ring Scan (PRISMamba), arXiv:2602.04170"
_RSMAMBA = "Chen et al., RSMamba: Remote Sensing Image Classification, arXiv:2403.19654"
_SEGMAMBA = "Xing et al., SegMamba, arXiv:2401.13560"
_ND = "Li et al., Mamba-ND: Selective State Space Modeling, arXiv:2402.05892"

# name, factory, summary, citation
_SCANS = (
    ("raster", "fixed:Raster", "row by row, one way", _VIM),
    ("column", "fixed:Column", "column by column, one way", _VMAMBA),
    ("bidirectional", "fixed:Bidirectional", "raster and its reverse", _VIM),
    ("cross", "fixed:Cross", "every axis order and its reverse", _VMAMBA),
    ("axis-cross", "fixed:AxisCross", "every axis order and its reverse, or one a layer", _ND),
    ("tri", "fixed:Tri", "volumes: along W, its reverse, and along D", _SEGMAMBA),
    ("sweep8", "fixed:Sweep8", "rows or columns from four corners, one a layer", _DIMSUM),
    ("snake", "curves:Snake", "rows (or columns), every other one backwards", _PLAIN),
    ("zigzag", "curves:Zigzag", "snakes from the four corners, one a layer", _ZIGMA),
    ("diagonal", "curves:Diagonal", "diagonal after diagonal, all the same way", _RSM),
    ("antidiagonal", "curves:Antidiagonal", "diagonals of the grid mirrored in w", _RSM),
    ("jpeg", "curves:Jpeg", "diagonals in alternating directions", _DIMSUM),
    ("morton", "curves:Morton", "by interleaved bits of the coordinates", _MORTON),
    ("hilbert", "hilbert:Hilbert", "the Hilbert curve, generalised to any sides", _HILBERT),
    ("spiral", "curves:Spiral", "loops from a corner inwards, or outwards", _DIFFMA),
    ("rings", "curves:Rings", "rings from the border inwards, by angle", _PRISM),
    ("local", "windows:Local", "window after window, raster inside each", _LOCAL),
    ("stripes", "windows:Stripes", "snakes inside stripes, to and fro", _MAIR),
    ("atrous", "windows:Atrous", "interleaved sub-grids, each by itself", _EFFICIENT),
    ("layers", "layers:Layers", "a list of scans, in turn by layer", _ZIGMA),
    ("random", "permutations:Random", "one random permutation a layer, for good", _ZIGMA),
    ("shuffle", "permutations:Shuffle", "a fresh random permutation at every call", _RSMAMBA),
    (
        "regenerate",
        "regenerate:Regenerate",
        "a fresh shuffle of the patches before each S6 call, then a base scan",
        _VMDDPM,
    ),
)


@hookimpl
def ssmdiff_scans() -> Iterable[Component]:
    for name, factory, summary, cite in _SCANS:
        yield Component(name, f"ssmdiff_scans.{factory}", summary, cite)
