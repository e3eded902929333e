"""``ssmdiff translate`` and ``ssmdiff inpaint``: images made of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff.errors import ConfigError

from ssmdiff_cli import drawing, flags

if TYPE_CHECKING:
    from ssmdiff.diffusion.image_model import ImageModel

Images = Annotated[
    Path, typer.Argument(help="A folder of pictures, one picture, or a store of ssmdiff data.")
]


def translate(
    model: drawing.Model,
    images: Images,
    out: Annotated[Path, typer.Option(help="Where the images go, each under its own name.")],
    strength: Annotated[
        float | None,
        typer.Option(
            help="Begin at the image with noise on it and walk this share of the steps, 0 to 1; "
            "from noise by default."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of a store: whose images; train, what is trained on, by default."),
    ] = None,
    steps: drawing.Steps = None,
    scheduler: drawing.Scheduler = None,
    seed: drawing.Seed = 0,
    label: flags.Label = None,
    tell: flags.Tell = None,
    guidance: flags.Guidance = None,
    guidance_rescale: flags.GuidanceRescale = None,
    guidance_interval: flags.GuidanceInterval = None,
    guidance_calls: flags.GuidanceCalls = None,
    negative: flags.Negative = None,
    batch_size: drawing.BatchSize = 16,
    format: drawing.Format = "png",
    set_: drawing.Sets = None,
    checkpoint: drawing.Checkpoint = None,
    kernel: flags.Kernel = None,
    compile: drawing.Compile = False,
    provider: drawing.Provider = None,
    ort_library: drawing.OrtLibrary = None,
    overwrite: drawing.Overwrite = False,
) -> None:
    """Make an image of each image: by a model that is told images, or by --strength.

    Goes on where it was stopped.
    """
    given = drawing.Opening(checkpoint, kernel, compile, provider, ort_library)
    telling = flags.Telling(
        label, tell, guidance, guidance_rescale, guidance_interval, guidance_calls, negative
    )
    own, asked = drawing.parted(set_)
    form, trained = drawing.prepared(model, format, own, scheduler, given)

    from ssmdiff.diffusion.courses import FromImage

    from ssmdiff_cli.given import given_images, reading_of, refuse_within

    refuse_within(out, images)
    told_as = _image_of(trained, tell or [])
    if told_as is None and strength is None:
        raise ConfigError(
            f"{model} is told no image, so there is nothing to translate by. Train with an image "
            "among model.conditions, or begin at the images: --strength 0.6"
        )
    channels = trained.shape[0] if told_as is None else told_as[1]
    if strength is not None and channels != trained.shape[0]:
        raise ConfigError(
            f"--strength begins at the image, which has {channels} channels here and "
            f"{trained.shape[0]} of what is drawn; leave it out"
        )
    name = None if told_as is None else told_as[0]
    reading = reading_of(trained, asked, images)
    found = given_images(images, trained.shape[1:], channels, reading, split, name)
    told = {} if told_as is None else {told_as[0]: found.as_told()}
    request = drawing.request_of(
        trained,
        len(found),
        telling,
        seed=seed,
        steps=steps,
        scheduler=scheduler,
        told=told,
        format=form,
        course=None if strength is None else FromImage(found.images, strength),
        made_of=found.made_of({"job": "translate", "strength": strength}),
    )
    drawing.fill_all(trained, request, out, batch_size, overwrite)


def inpaint(
    model: drawing.Model,
    images: Images,
    mask: Annotated[
        Path,
        typer.Option(help="Where to draw: not 0. A folder with one of each name, or one for all."),
    ],
    out: Annotated[Path, typer.Option(help="Where the images go, each under its own name.")],
    repeats: Annotated[
        int,
        typer.Option(
            min=1, help="How often each stretch of the steps is walked; so many times the calls."
        ),
    ] = 5,
    jump: Annotated[
        int | None,
        typer.Option(min=1, help="Steps that it goes back; a tenth of them by default."),
    ] = None,
    steps: drawing.Steps = None,
    scheduler: drawing.Scheduler = None,
    seed: drawing.Seed = 0,
    label: flags.Label = None,
    tell: flags.Tell = None,
    guidance: flags.Guidance = None,
    guidance_rescale: flags.GuidanceRescale = None,
    guidance_interval: flags.GuidanceInterval = None,
    guidance_calls: flags.GuidanceCalls = None,
    negative: flags.Negative = None,
    batch_size: drawing.BatchSize = 16,
    format: drawing.Format = "png",
    set_: drawing.Sets = None,
    checkpoint: drawing.Checkpoint = None,
    kernel: flags.Kernel = None,
    compile: drawing.Compile = False,
    provider: drawing.Provider = None,
    ort_library: drawing.OrtLibrary = None,
    overwrite: drawing.Overwrite = False,
) -> None:
    """Draw the masked part of each image, and keep the rest as it is.

    Goes on where it was stopped.
    """
    given = drawing.Opening(checkpoint, kernel, compile, provider, ort_library)
    telling = flags.Telling(
        label, tell, guidance, guidance_rescale, guidance_interval, guidance_calls, negative
    )
    own, asked = drawing.parted(set_)
    form, trained = drawing.prepared(model, format, own, scheduler, given)

    from ssmdiff.diffusion.courses import FillIn

    from ssmdiff_cli.given import given_images, masks_of, reading_of, refuse_within

    refuse_within(out, images, mask)
    size = trained.shape[1:]
    found = given_images(images, size, trained.shape[0], reading_of(trained, asked, images))
    unknown, digest = masks_of(mask, found, size)
    request = drawing.request_of(
        trained,
        len(found),
        telling,
        seed=seed,
        steps=steps,
        scheduler=scheduler,
        format=form,
        course=FillIn(found.images, unknown, repeats, jump),
        made_of=found.made_of(
            {"job": "inpaint", "masks": digest, "repeats": repeats, "jump": jump}
        ),
    )
    drawing.fill_all(trained, request, out, batch_size, overwrite)


def _image_of(trained: ImageModel[Any], tells: list[str]) -> tuple[str, int] | None:
    """The condition that the images are told as, with its channels; None where there is none.

    Raises:
        ConfigError: There are several, and it is not said which of them is given otherwise.
    """
    elsewhere = {word.partition("=")[0] for word in tells}
    found = [one for one in trained.conditions if one.kind == "image"]
    left = [one for one in found if one.name not in elsewhere]
    if len(left) > 1:
        names = " and ".join(one.name for one in left)
        raise ConfigError(
            f"the model is told several images, {names}; say which of them IMAGES are not, by "
            f"--tell {left[-1].name}=FOLDER, or none"
        )
    return (left[0].name, left[0].channels) if left else None
