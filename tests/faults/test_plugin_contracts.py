"""Faults of plugins when they are used: the rows P10, P11, P12 and P14 of the catalogue.

The contract suite must name each of them, in words that its author can act on.
"""

from __future__ import annotations

import numpy as np
import pytest
import ssmdiff
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssmdiff.errors import ContractError, PluginBrokenError
from ssmdiff.registry.registry import Registry
from ssmdiff.runs import checkpoint as ckpt
from ssmdiff.runs.config import merge, resolve
from ssmdiff.testing import check_block, check_scan
from ssmdiff_train.job import train

pytestmark = pytest.mark.usefixtures("fresh_registry")

SCAN = """
    import math
    import random
    import numpy as np
    import torch
    import ssmdiff

    class Bad(ssmdiff.Scan):
        stochastic = {stochastic}
        calls = 0
        cache = {{}}

        def directions(self, dims):
            return 1

        def order(self, grid, generator=None):
            index = np.arange(math.prod(grid))[None]
            {body}
            return ssmdiff.ScanOrder(index)

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""


def failures(report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


# P10: tables


@st.composite
def broken_tables(draw):
    """A table of permutations with one thing wrong, and the direction and time where it is."""
    K, L = draw(st.integers(1, 4)), draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    table = np.stack([rng.permutation(L) for _ in range(K)])
    k, t = draw(st.integers(0, K - 1)), draw(st.integers(0, L - 1))
    wrong = draw(st.sampled_from(["duplicate", "negative", "outside"]))
    if wrong == "duplicate":
        other = draw(st.integers(0, L - 1).filter(lambda i: i != t))
        table[k, t] = table[k, other]
        t = max(t, other)
    else:
        table[k, t] = (
            -draw(st.integers(1, 99)) if wrong == "negative" else L + draw(st.integers(0, 9))
        )
    return table, wrong, k, t


@given(broken_tables())
def test_p10_any_table_that_is_no_permutation_is_refused_where_it_breaks(case) -> None:
    table, wrong, k, t = case
    with pytest.raises(ContractError) as raised:
        ssmdiff.ScanOrder(table)
    said = str(raised.value)
    assert f"direction {k} " in said
    assert f"at time {t}" in said
    assert ("is visited 2 times" in said) == (wrong == "duplicate")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("index[0, -1] = 0", "token 0 is visited 2 times"),
        ("index[0, 0] = -1", "visits token -1 at time 0"),
        ("index[0, 0] = index.size", "at time 0; tokens are 0 to"),
        ("index = index + 0.0", "holds integers, got float64"),
        ("index = index[:, :-1]", "of shape|has shape"),
        ("index = index[0]", r"has shape \(K, L\), got"),
        ("index = np.array(3)", r"has shape \(K, L\), got \(\)"),
        ("index = np.concatenate([index, index])", r"expected \(K, L\) = \(1, "),
        ("return index", "gave a ndarray; expected a ScanOrder"),
    ],
)
def test_p10_a_scan_of_such_tables_fails_by_name_and_grid(install, body: str, said: str) -> None:
    install("ssmdiff-bad", SCAN.format(body=body, stochastic=False))
    report = check_scan("bad")
    assert report.subject == "scan 'bad' (ssmdiff-bad 1.0)"
    found = failures(report)
    assert "permutation" in found
    assert "scan Bad on a 1 x" in found["permutation"]
    with pytest.raises(ContractError, match=said):
        report.raise_for_failures()


def test_p10_a_network_refuses_it_too(install) -> None:
    install("ssmdiff-bad", SCAN.format(body="index[0, -1] = 0", stochastic=False))
    from ssmdiff.orders.scan import fixed_order

    with pytest.raises(ContractError, match=r"scan Bad on a 7 x 5 grid: .*token 0 .*at time 34"):
        fixed_order(Registry().create("scan", "bad"), (7, 5))


@pytest.mark.parametrize(
    ("body", "stochastic", "said"),
    [
        ("index = np.random.permutation(index[0])[None]", False, "moved a global random state"),
        ("index = np.random.permutation(index[0])[None]", True, "moved a global random state"),
        ("index = torch.randperm(index.size)[None].numpy()", True, "moved a global random state"),
        ("random.shuffle(index[0])", False, "moved a global random state"),
        (
            "index = np.random.default_rng().permutation(index[0])[None]",
            False,
            "differ for the same generator",
        ),
        (
            "Bad.calls += 1; index = np.roll(index, Bad.calls)",
            False,
            "differ for the same generator",
        ),
        (
            "index = np.roll(index, 0 if generator is None else int(generator.integers(99)))",
            False,
            "differ with the generator, and stochastic is False",
        ),
        ("", True, "without a generator gave an order, and stochastic is True"),
        (
            "generator.random() if generator else exec('raise ssmdiff.errors.ConfigError(0)')",
            True,
            "of other steps and slots, are equal",
        ),
    ],
)
def test_p10_an_order_that_depends_on_anything_else_is_found(
    install, body: str, stochastic: bool, said: str
) -> None:
    install("ssmdiff-bad", SCAN.format(body=body, stochastic=stochastic))
    assert said in failures(check_scan("bad"))["randomness"]


def test_p10_a_curve_that_jumps_and_says_it_does_not_is_found(install) -> None:
    body = "index = index[:, ::-1]"
    code = SCAN.format(body=body, stochastic=False).replace(
        "calls = 0", "continuous = True; calls = 0"
    )
    install("ssmdiff-bad", code)
    said = failures(check_scan("bad"))["continuity"]
    assert "direction 0 on a 2 x 2 grid jumps from (1, 0) to (0, 1) at time 2" in said


def test_p10_a_grid_that_is_refused_with_another_error_is_found(install) -> None:
    install("ssmdiff-bad", SCAN.format(body="assert grid[0] == grid[1]", stochastic=False))
    said = failures(check_scan("bad"))["grids"]
    assert "AssertionError on a 1 x 2 grid; expected an order, or a ssmdiff.errors.Con" in said


# P11: what is shared


def test_p11_tables_and_what_is_derived_from_them_cannot_be_written_to() -> None:
    given_by_plugin = np.arange(6)[None].copy()
    order = ssmdiff.ScanOrder(given_by_plugin, np.zeros((1, 6), bool))
    for table in (order.index, order.inverse, order.restart, order.coded):
        with pytest.raises(ValueError, match="read-only"):
            table[0, 0] = 1
    with pytest.raises(AttributeError):
        order.index = given_by_plugin
    given_by_plugin[0, 0] = 5
    assert order.index[0, 0] == 0, "the plugin's own array is another one"


def test_p11_a_scan_that_writes_to_its_shared_table_is_found(install) -> None:
    body = "order = self.cache.setdefault(grid, ssmdiff.ScanOrder(index)); order.index[0, 0] = 0"
    install("ssmdiff-bad", SCAN.format(body=body, stochastic=False))
    assert "ValueError: assignment destination is read-only" in failures(check_scan("bad"))["grids"]


def test_p11_the_records_of_other_plugins_cannot_be_changed() -> None:
    entry = Registry(allowed=[]).find("scan", "cross")
    with pytest.raises(AttributeError):
        entry.component.name = "mine"
    with pytest.raises(AttributeError):
        entry.component = None
    assert Registry(allowed=[]).all("scan") is not Registry(allowed=[]).all("scan")


# P12: blocks

BLOCK = """
    import torch
    import ssmdiff

    class Bad(torch.nn.Module):
        scan_calls = {calls}

        def __init__(self, channels: int, time_channels: int, directions: int):
            super().__init__()
            self.mix = torch.nn.Linear(channels, channels)
            self.time = torch.nn.Linear(time_channels, channels)
            self.A = torch.nn.Parameter(-torch.ones(directions, channels, 1))
            self.K, self.noise, self.seen = directions, torch.randn(()), 0

        def scan(self, u, order):
            one = u.new_ones(len(u), self.K, u.shape[1], 1)
            step = torch.full_like(u, 0.5)[:, None].expand(-1, self.K, -1, -1).contiguous()
            return ssmdiff.selective_scan(u, step, self.A, one, one, order)

        def forward(self, x, time, orders):
            u = (x.flatten(2).transpose(1, 2) + self.time(time)[:, None])
            h = x.flatten(2).transpose(1, 2)
            for order in orders:
                h = h + self.mix(self.scan(u, order))
            y = h.transpose(1, 2).reshape(x.shape)
            {body}
            return y

    @ssmdiff.hookimpl
    def ssmdiff_blocks():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""


def test_p12_a_block_with_nothing_wrong_passes(install) -> None:
    install("ssmdiff-bad", BLOCK.format(body="", calls=1))
    check_block("bad").raise_for_failures()


@pytest.mark.parametrize(
    ("body", "check", "said"),
    [
        ("y = y.double()", "shape", "torch.float64 on cpu"),
        ("y = y.float()", "float64", "torch.float32"),
        ("y = y[..., :-1]", "shape", "expected shape"),
        ("y = y.flatten(2)", "shape", "expected shape"),
        ("y = [y]", "shape", "got a list"),
        ("y = y.to('meta')", "shape", "on meta"),
        (
            "y = torch.zeros(y.shape) if x.is_meta else y",
            "device",
            "on cpu for x on the meta device",
        ),
        ("y = y / 0 * 0", "shape", "are not finite"),
        ("y = y.log()", "shape", "are not finite"),
        ("x.mul_(2)", "shape", "was written to"),
        (
            "y = y * 0 + self.mix.bias.sum() + self.A.sum()",
            "uses-input",
            "another x gives the same",
        ),
        ("y = y + 0 * self.scan(u, orders[0]).transpose(1, 2).reshape(x.shape)", None, ""),
        ("y = y + y.mean(0)", "batch", "an image alone and in a batch of 3 differ"),
        ("y = y + torch.randn_like(y)", "determinism", "draws random numbers"),
        ("self.seen += 1; y = y + self.seen", "determinism", "two calls with the same arguments"),
        ("y = y + self.noise", "state", "register_buffer"),
        (
            "y = x + (x.flatten(2).transpose(1, 2) @ self.mix.weight).transpose(1, 2)"
            ".reshape(x.shape)",
            "uses-time",
            "another time embedding gives the same output",
        ),
        (
            "y = x + self.mix(u).transpose(1, 2).reshape(x.shape)",
            "orders",
            "another order 0 of 1 gives the same output",
        ),
        (
            "y = x + self.mix(u).transpose(1, 2).reshape(x.shape)",
            "gradients",
            "parameter 'A' (2, 16, 1) gets no gradient",
        ),
        (
            "y = x + self.mix(self.scan(u, ssmdiff.decode_order(orders[0])[0]))"
            ".transpose(1, 2).reshape(x.shape)",
            "restarts",
            "pass the order to ssmdiff.selective_scan as it is",
        ),
        ("raise KeyError('mine')", "shape", "KeyError: 'mine'"),
    ],
)
def test_p12_a_block_that_breaks_its_contract_fails_by_name(
    install, body: str, check: str | None, said: str
) -> None:
    install("ssmdiff-bad", BLOCK.format(body=body, calls=1))
    report = check_block("bad")
    assert report.subject == "block 'bad' (ssmdiff-bad 1.0)"
    found = failures(report)
    if check is None:
        assert not found
        return
    assert said in found[check]


def test_p12_scan_calls_must_be_told(install) -> None:
    install("ssmdiff-bad", BLOCK.format(body="", calls="None"))
    assert "scan_calls is None" in failures(check_block("bad"))["orders"]


# P14: in the middle of training


def test_p14_a_plugin_that_raises_in_training_is_named_and_the_checkpoint_kept(
    install, tmp_path
) -> None:
    body = "self.seen += self.training\n            if self.seen > 8: raise KeyError('mine')"
    install("ssmdiff-bad", BLOCK.format(body=body, calls=1))
    config = resolve(
        merge(
            {
                "data": {"image_size": 8, "dataset": {"name": "phantom", "length": 8}},
                "model": {
                    "scan": {"name": "bidirectional"},
                    "backbone": {
                        "name": "vmddpm", "channels": 8, "widths": [1], "layers": 1,
                        "stem_stride": 1,
                    },
                    "block": {"name": "bad"},
                },
            },
            {
                "train": {
                    "steps": 20, "batch_size": 2, "checkpoint_every": 3, "sample_every": 0,
                    "bound_images": 0,
                }
            },
        )
    )  # fmt: skip
    with pytest.raises(PluginBrokenError) as raised:
        train(config, tmp_path / "run")
    said = str(raised.value)
    assert raised.value.exit_code == 3
    assert "step 9: plugin 'ssmdiff_bad' (ssmdiff-bad 1.0) raised KeyError: 'mine'" in said
    assert "the last good checkpoint is" in said
    kept = ckpt.candidates(tmp_path / "run" / "checkpoints")
    assert kept[0].name == "step-00000006"
    assert str(kept[0]) in said
    state = ckpt.verify(kept[0]).tensors("model")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


# Slots of backbones

TWO_BLOCKS = """
    import torch
    import ssmdiff

    class Bad(torch.nn.Module):
        def __init__(self, in_channels, out_channels, scan, block, context_channels=0):
            super().__init__()
            self.scan = scan
            self.blocks = torch.nn.ModuleList([{blocks}])

        def scan_slots(self, image_size):
            return [ssmdiff.ScanSlot(tuple(image_size))] * 2

    @ssmdiff.hookimpl
    def ssmdiff_backbones():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
LAYERS = {"name": "layers", "scans": ["cross", "raster"]}  # of four directions and of one


def two_blocks() -> torch.nn.Module:
    table = {"backbone": {"name": "bad"}, "block": {"name": "mss"}, "scan": LAYERS}
    return ssmdiff.build_backbone(resolve({"model": table}), 1)


def test_a_block_is_built_for_the_scan_of_its_slot_whenever_it_is_built(install) -> None:
    install("ssmdiff-bad", TWO_BLOCKS.format(blocks="block(8, 4, slot=1), block(8, 4, slot=0)"))
    model = two_blocks()
    assert [(block.slot, block.csm.directions) for block in model.blocks] == [(1, 1), (0, 4)]


@pytest.mark.parametrize(
    ("slots", "told"), [((0, 0), "[0, 0]"), ((0, 2), "[0, 2]"), ((1,), "[1]"), ((0, 1, 2), "2]")]
)
def test_a_backbone_whose_slots_disagree_is_refused_when_it_is_built(install, slots, told) -> None:
    blocks = ", ".join(f"block(8, 4, slot={slot})" for slot in slots)
    install("ssmdiff-bad", TWO_BLOCKS.format(blocks=blocks))
    with pytest.raises(ContractError) as raised:
        two_blocks()
    assert "backbone 'bad': scan_slots has 2 slots" in str(raised.value)
    assert told in str(raised.value)


def test_a_backbone_that_gives_no_slot_is_told_so(install) -> None:
    install("ssmdiff-bad", TWO_BLOCKS.format(blocks="block(8, 4)"))
    with pytest.raises(PluginBrokenError, match="slot"):
        two_blocks()
