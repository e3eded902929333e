"""What a run and a file were made with is compared when they are opened again.

A run trained with a plugin whose order then changed was sampled and resumed without a word.
"""

from __future__ import annotations

import shutil
import sys
import warnings

import numpy as np
import pytest
import ssmdiff
from model_files import card
from ssmdiff_cli.main import app
from ssmdiff_export.runtime.card import ModelCard, Slot
from ssmdiff_export.runtime.sampler import FilePlan
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.tracing import card as card_of
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("fresh_registry")

SCAN = """
    import math

    import numpy as np
    import ssmdiff

    class Backwards(ssmdiff.Scan):
        stochastic = {stochastic}

        def directions(self, dims):
            return 1

        def order(self, grid, generator=None):
            L = math.prod(grid)
            return ssmdiff.ScanOrder({order}[None])

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("backwards", Backwards, "From the last token to the first.")
"""
FIXED = "np.arange(L)[::-1]", "np.roll(np.arange(L), 7)"
DRAWN = "ssmdiff.permutation(generator, L)", "ssmdiff.permutation(generator, L)[::-1]"
SMALL = ["--image-size", 8, "--batch-size", 2, "--set", "train.bound_images=0",
         "--set", "sample.steps=1", "--set", "sample.count=1", "--set", "model.backbone.channels=8",
         "--set", "model.backbone.widths=[1]", "--set", "model.block.state=4"]  # fmt: skip


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def plugin(install):
    """``plugin(version, order)`` puts this version in the place of the one before."""

    def put(version, order):
        site = install("unused-backwards", "")
        for path in site.glob("*backwards*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        sys.modules.pop("ssmdiff_backwards", None)
        code = SCAN.format(order=order, stochastic="generator" in order)
        install("ssmdiff-backwards", code, version)
        ssmdiff.registry.cache_clear()

    return put


@pytest.fixture
def run(plugin, tmp_path, request):
    """Two steps with version 1.0 of the scan whose orders the test names."""
    plugin("1.0", request.param[0])
    done = invoke("train", "--scan", "backwards", "--steps", 2, *SMALL, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    return tmp_path / "run"


def warnings_of(path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ssmdiff.load_run(path)
    return [str(w.message) for w in told if "made with other code" in str(w.message)]


@pytest.mark.parametrize(
    ("run", "orders"),
    [(FIXED, FIXED), pytest.param(DRAWN, DRAWN, marks=pytest.mark.slow)],
    indirect=["run"],
)
def test_a_scan_that_changed_is_told_when_sampling_and_asked_for_when_resuming(run, orders, plugin):
    """Also of the same version: the orders themselves are compared."""
    assert warnings_of(run) == []
    same, other = "backwards: ssmdiff-backwards 1.0", "backwards: ssmdiff-backwards 3.0"
    for version, order, expected in (
        ("3.0", orders[0], [f"provenance.model.scan: {same} -> {other}"]),
        ("1.0", orders[1], ["provenance.orders: slot 0 ("]),
        ("3.0", orders[1], ["provenance.model.scan: ", "provenance.orders: slot 0 ("]),
    ):
        plugin(version, order)
        (told,) = warnings_of(run)
        for part in ("provenance.model.scan: ", "provenance.orders: slot 0 ("):
            assert (part in told) is any(words.startswith(part) for words in expected)
        assert all(words in told for words in expected)

        keys = [words.partition(":")[0] for words in expected]
        refused = invoke("train", "--resume", "--steps", 3, "--out", run)
        assert refused.exit_code == 2
        assert all(key in refused.output for key in keys)
    allowed = [flag for key in keys for flag in ("--allow-config-change", key)]
    done = invoke("train", "--resume", "--steps", 3, "--out", run, *allowed)
    assert done.exit_code == 0, done.output
    assert warnings_of(run) == [], "the run was gone on with, and is now of what is here"


@pytest.mark.parametrize("run", [FIXED], indirect=True)
def test_a_run_that_tells_no_orders_opens(run):
    """As those of before 0.2; tests/compat has some."""
    found = ssmdiff.RunFolder(run).checkpoint()
    state = found.state()
    del state["provenance"]["orders"]
    trained = ssmdiff.load_run(run)
    assert ssmdiff.made_otherwise(state, trained.config, trained.plan(), "model") == {}
    del state["provenance"]
    assert ssmdiff.made_otherwise(state, trained.config, trained.plan(), "model") == {}


def test_a_digest_is_of_the_order_alone():
    index = np.array([[2, 0, 1], [1, 2, 0]])
    restart = np.array([[True, False, False], [True, False, True]])
    one = ssmdiff.ScanOrder(index)
    assert one.digest == ssmdiff.ScanOrder(index.astype(np.int64)).digest
    assert one.digest != ssmdiff.ScanOrder(index[::-1]).digest
    assert one.digest != ssmdiff.ScanOrder(index, restart).digest


@pytest.mark.parametrize("run", [DRAWN], indirect=True)
def test_a_file_whose_scan_is_another_here_is_told(run, plugin):
    """An order without a recipe is drawn by the scan that is installed."""
    trained = ssmdiff.load_run(run)
    made = card_of(trained, GraphInputs.of(trained), "fp32", "scan", None)
    read = ModelCard.from_json(made.to_json())
    assert [slot.digest for slot in read.slots] == ssmdiff.order_digests(trained.plan())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = FilePlan(read, seed=4).draw(2)
    plugin("1.0", DRAWN[1])
    with pytest.warns(UserWarning, match=r"made with backwards: ssmdiff-backwards 1\.0 \(slot 0"):
        drawn = FilePlan(read, seed=4).draw(2)
    assert (drawn[0].index != expected[0].index).any()


def test_a_file_without_digests_opens():
    read = ModelCard.from_json(card().to_json())
    assert read.slots == (Slot((4, 4), "order_0", "recipe_0"),)
