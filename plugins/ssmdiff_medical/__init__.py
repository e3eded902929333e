"""Medical files, an extra: volumes, series, and data sets by name."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

from ssmdiff_medical.references import ACDC, BRATS, CHESTXRAY14


@hookimpl
def ssmdiff_readers() -> Iterable[Component]:
    yield Component(
        "nifti",
        "ssmdiff_medical.nifti:NiftiReader",
        "NIfTI: .nii, .nii.gz, pairs of .hdr and .img",
        "Li et al., J. Neurosci. Methods 264:47-56 (2016), doi:10.1016/j.jneumeth.2016.03.001",
    )
    yield Component(
        "dicom",
        "ssmdiff_medical.dicom:DicomReader",
        "DICOM: images, series as volumes, enhanced multi-frame",
        "Mason et al., pydicom, doi:10.5281/zenodo.1009663",
    )


@hookimpl
def ssmdiff_datasets() -> Iterable[Component]:
    yield Component(
        "acdc",
        "ssmdiff_medical.acdc:Acdc",
        "cardiac MRI of 150 patients, from a store made by data prepare --as acdc",
        ACDC,
    )
    yield Component(
        "brats2018",
        "ssmdiff_medical.brats:Brats",
        "brain tumours in MRI, 2018 to 2023, from a store made by data prepare --as brats2018",
        BRATS,
    )
    yield Component(
        "chestxray14",
        "ssmdiff_medical.chestxray:ChestXray14",
        "112,120 chest radiographs, from a store made by data prepare --as chestxray14",
        CHESTXRAY14,
    )


@hookimpl
def ssmdiff_writers() -> Iterable[Component]:
    yield Component(
        "nifti", "ssmdiff_medical.nifti_writer:NiftiWriter", "NIfTI in the data's own units"
    )
    yield Component(
        "dicom", "ssmdiff_medical.dicom_writer:DicomWriter", "DICOM that says it is synthetic"
    )
