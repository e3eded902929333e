"""Data sets ``phantom``, built in, and ``folder``, images on disk; files of pictures."""

from collections.abc import Iterable

from ssmdiff import Command, Component, hookimpl


@hookimpl
def ssmdiff_datasets() -> Iterable[Component]:
    yield Component(
        "phantom", "ssmdiff_data.phantom:PhantomDataset", "synthetic heads, a function of the index"
    )
    yield Component(
        "folder", "ssmdiff_data.folder:FolderDataset", "PNG, TIFF, JPEG and .npy files on disk"
    )
    yield Component(
        "store", "ssmdiff_data.stored:StoreDataset", "what ssmdiff data prepare made of files"
    )


@hookimpl
def ssmdiff_readers() -> Iterable[Component]:
    yield Component(
        "picture", "ssmdiff_data.pictures:PictureReader", "PNG, JPEG, TIFF and its stacks, .npy"
    )
    yield Component("npz", "ssmdiff_data.arrays:ArrayReader", "every image array of an .npz file")


@hookimpl
def ssmdiff_writers() -> Iterable[Component]:
    yield Component("png", "ssmdiff_data.writers:PngWriter", "8-bit PNG, grey or RGB")
    yield Component("png16", "ssmdiff_data.writers:Png16Writer", "16-bit PNG, grey")
    yield Component("npy", "ssmdiff_data.writers:NpyWriter", "float32 arrays of any shape")


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "data",
        "ssmdiff_data.command:app",
        "look at images, and prepare them for training",
        job="ssmdiff_data.job:data",
        examples=(
            "ssmdiff data show scans",
            "ssmdiff data show scans --all --sheet sheet.png",
            "ssmdiff data prepare scans --out stores/scans --image-size 64",
            "ssmdiff data prepare ACDC/database --as acdc --out stores/acdc --workers 2",
        ),
    )
