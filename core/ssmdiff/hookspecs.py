"""Everything that a plugin can offer, on one page.

A plugin is a module named by an entry point in the group ``ssmdiff``. It implements any of these
hooks, marked with :data:`hookimpl`, and yields :class:`~ssmdiff.component.Component` records::

    import ssmdiff

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("spiral", "my_package.spiral:Spiral", "inwards from a corner")

Factories named by a string are imported on first use, so keep the plugin module itself light.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from ssmdiff.component import Component

if TYPE_CHECKING:
    import typer

PROJECT = "ssmdiff"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


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
def ssmdiff_schedulers() -> Iterable[Component]:
    """``factory(betas, prediction_type, **options)``, see ``NoiseScheduler``."""
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
def ssmdiff_metrics() -> Iterable[Component]:
    """Measures of a set of images."""
    return ()


@hookspec
def ssmdiff_exporters() -> Iterable[Component]:
    """Targets of ``ssmdiff export``."""
    return ()


@hookspec
def ssmdiff_commands() -> Iterable[tuple[str, typer.Typer]]:
    """Sub-commands: pairs of a name and a Typer app. Called when the command line starts."""
    return ()
