"""Everything that a plugin can offer, on one page.

A plugin is a module named by an entry point in the group ``ssmdiff``. It implements any of these
hooks, marked with :data:`hookimpl`, and yields :class:`ssmdiff.Component` records::

    import ssmdiff

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("spiral", "my_package.spiral:Spiral", "inwards from a corner")

Factories named by a string are imported on first use, so keep the plugin module itself light.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from ssmdiff.registry.component import Command, Component

if TYPE_CHECKING:
    from ssmdiff.registry.events import StepRecord

PROJECT = "ssmdiff"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

API = 1
"""The version of this page. A plugin module may say which one it was written for, ``SSMDIFF_API =
1``; one that says a newer one is refused with what to upgrade."""


@hookspec
def ssmdiff_scans() -> Iterable[Component]:
    """Scan orderings: factories of :class:`ssmdiff.Scan`."""
    return ()


@hookspec
def ssmdiff_blocks() -> Iterable[Component]:
    """``factory(channels, time_channels, directions, **options)``, see ``Block``."""
    return ()


@hookspec
def ssmdiff_backbones() -> Iterable[Component]:
    """``factory(in_channels, scan, block, num_classes, **options)``, see ``Backbone``."""
    return ()


@hookspec
def ssmdiff_methods() -> Iterable[Component]:
    """``factory(config, channels, classes, **options)``, see :class:`ssmdiff.Method`."""
    return ()


@hookspec
def ssmdiff_gans() -> Iterable[Component]:
    """Generators with their discriminators: ``factory(channels, image_size, latent_size,
    **options)`` gives a :class:`ssmdiff.Gan`."""
    return ()


@hookspec
def ssmdiff_losses() -> Iterable[Component]:
    """Losses of a generator and its discriminator: factories of ``AdversarialLoss``."""
    return ()


@hookspec
def ssmdiff_schedulers() -> Iterable[Component]:
    """``factory(betas, prediction_type, **options)``, of a flow ``factory(trained_shift,
    **options)``, see ``NoiseScheduler``."""
    return ()


@hookspec
def ssmdiff_kernels() -> Iterable[Component]:
    """Kernels of the selective scan: factories of :class:`ssmdiff.ops.Kernel`."""
    return ()


@hookspec
def ssmdiff_datasets() -> Iterable[Component]:
    """Data sets: ``factory(image_size, **options)``, see ``ImageDataset``."""
    return ()


@hookspec
def ssmdiff_readers() -> Iterable[Component]:
    """File formats that images are read from: factories of :class:`ssmdiff.Reader`."""
    return ()


@hookspec
def ssmdiff_writers() -> Iterable[Component]:
    """File formats that samples are written in: factories of :class:`ssmdiff.Writer`."""
    return ()


@hookspec
def ssmdiff_exporters() -> Iterable[Component]:
    """Targets of ``ssmdiff export``."""
    return ()


@hookspec
def ssmdiff_features() -> Iterable[Component]:
    """Feature networks of an evaluation: factories of :class:`ssmdiff.FeatureNetwork`."""
    return ()


@hookspec
def ssmdiff_metrics() -> Iterable[Component]:
    """Metrics of an evaluation: factories of :class:`ssmdiff.Metric`."""
    return ()


@hookspec
def ssmdiff_commands() -> Iterable[Command]:
    """Commands of ``ssmdiff`` and the jobs behind them: :class:`ssmdiff.Command` records.

    ``ssmdiff --help`` shows name and summary; the command is imported when it is called. The flags
    that commands share are in ``ssmdiff_cli.flags``. Another job reaches it by ``ssmdiff.job``.
    """
    return ()


@hookspec
def ssmdiff_callbacks() -> Iterable[Component]:
    """Listeners that a run asks for by name in ``train.callbacks``: factories of an object with
    any of the hooks below as methods."""
    return ()


# What a training run tells, on its main process. A plugin module that implements one of these
# hears every run; a callback hears those that ask for it. An implementation takes the arguments
# that it needs and may leave out the others.


@hookspec
def ssmdiff_run_start(folder: Path, config: Any, step: int) -> None:
    """Training is about to do step ``step + 1`` of ``config.train.steps``; a ``ssmdiff.Config``."""


@hookspec
def ssmdiff_step_end(record: StepRecord) -> None:
    """An optimiser step was done."""


@hookspec
def ssmdiff_checkpoint_saved(path: Path, step: int) -> None:
    """A checkpoint is on disk and verified."""


@hookspec
def ssmdiff_samples_made(path: Path, step: int) -> None:
    """A grid of samples was drawn from the averaged weights, a PNG."""


@hookspec
def ssmdiff_reported(name: str, value: float, step: int) -> None:
    """A figure was measured, such as ``bits_per_dim``."""


@hookspec
def ssmdiff_run_end(status: str) -> None:
    """The loop is over: ``finished``, ``interrupted`` or ``failed``."""
