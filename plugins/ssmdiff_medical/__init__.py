"""Medical files, an extra: volumes, series, and data sets by name."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_readers() -> Iterable[Component]:
    yield Component(
        "nifti",
        "ssmdiff_medical.nifti:NiftiReader",
        "NIfTI: .nii, .nii.gz, pairs of .hdr and .img",
        "Li et al., J. Neurosci. Methods 264:47-56 (2016), doi:10.1016/j.jneumeth.2016.03.001",
    )
