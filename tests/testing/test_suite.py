"""The suites find what is wrong with backbones, schedulers and data sets, and say it.

Kernels with faults stand in ``test_kernel_suite.py``, scans and blocks with faults are rows of
``tests/faults/test_plugin_contracts.py``.
"""

from __future__ import annotations

import pytest
from ssmdiff.errors import ConfigError, ContractError
from ssmdiff.testing import (
    Finding,
    Report,
    check,
    check_backbone,
    check_dataset,
    check_scan,
    check_scheduler,
)

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


DATASET = """
    import hashlib
    import random
    import torch
    import ssmdiff
    from ssmdiff import ImageItem

    class Bad:
        channels = 1
        class_names = ()
        calls = 0

        def __init__(self, image_size: tuple[int, ...]):
            self.size = tuple(image_size)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index >= 4:
                raise IndexError
            image, label = torch.full((1, *self.size), index / 4), 0
            {item}
            return ImageItem(image, label)

        def fingerprint(self):
            return {fingerprint}

    @ssmdiff.hookimpl
    def ssmdiff_datasets():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""


@pytest.mark.parametrize(
    ("item", "check", "said"),
    [
        ("", None, ""),
        ("image = image.double()", "images", "image 0 is torch.float64"),
        ("image = image * 300", "images", "image 1 reaches from 75 to 75"),
        ("image = image * 0 - 1.00000036", None, ""),
        ("image = image * 0 - 1.0001", "images", "image 0 reaches from -1.00010002 to -1.00010002"),
        ("image = image[0]", "images", "image 0 has shape (16, 16)"),
        ("image = image / 0", "images", "image 0 reaches from nan"),
        ("label = 3", "images", "image 0 has label 3; expected an int from 0 to 0"),
        ("image = image * random.random()", "determinism", "moved a global random state"),
        ("Bad.calls += 1; image = image + Bad.calls / 1e4", "determinism", "read twice differ"),
        ("self.f = lambda: 0", "pickling", "pickle"),
    ],
)
def test_datasets(install, item: str, check: str | None, said: str) -> None:
    install("ssmdiff-bad", DATASET.format(item=item, fingerprint="'abc'"))
    found = failures(check_dataset("bad"))
    if check is None:
        assert not found
    elif check == "determinism":
        assert "of two data sets differ" in found[check] or said in found[check]
    else:
        assert said in found[check] or "Can't" in found[check]


TOLD = """
            told = {{"angle": index * 5.0, "kind": 1, "marks": (0,),
                     "mask": torch.zeros(self.size, dtype=torch.uint8),
                     "low": image, "age": 3}}
            {item}
            return ImageItem(image, label, told)
"""
CONDITIONS = """class_names = ()
        conditions = (
            ssmdiff.Condition("angle", "number", low=0.0, high=15.0),
            ssmdiff.Condition("kind", "label", ("a", "b")),
            ssmdiff.Condition("marks", "labels", ("x", "y")),
            ssmdiff.Condition("mask", "mask", ("out", "in")),
            ssmdiff.Condition("low", "image"),
            ssmdiff.Condition("age", "number", low=0, high=9, optional=True),
        )
"""


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("", None),
        ("del told['age']", None),
        ("told['marks'] = {1}", None),
        ("told['angle'] = index * 5.1", "image 3, 'angle': 15.2"),
        ("told['angle'] = float('nan')", "image 0, 'angle': nan; expected a number from 0 to 15"),
        ("del told['angle']", "image 0 does not tell 'angle'"),
        ("told['angel'] = 1", "image 0 tells 'angel', which is not declared"),
        ("told['kind'] = 2", "image 0, 'kind': 2; expected numbers from 0 to 1"),
        ("told['kind'] = 'a'", "image 0, 'kind': 'a'"),
        ("told['marks'] = (0, 2)", "image 0, 'marks': (0, 2)"),
        ("told['marks'] = 1", "image 0, 'marks': 1; expected a tuple"),
        ("told['mask'] = told['mask'] + 2", "image 0, 'mask': torch.uint8 from 2 to 2"),
        ("told['mask'] = told['mask'].float()", "image 0, 'mask': torch.float32"),
        ("told['mask'] = told['mask'][:8]", "image 0, 'mask': (8, 16); expected a tensor"),
        ("told['mask'] = told['mask'].numpy()", "image 0, 'mask': ndarray"),
        ("told['low'] = image * 9", "image 1, 'low': torch.float32 up to 2.25"),
        ("told['low'] = torch.cat([image, image])", "image 0, 'low': (2, 16, 16)"),
        ("told['age'] = 10", "image 0, 'age': 10"),
        ("told['age'] = True", "image 0, 'age': True"),
        ("told['age'] = '5'", "image 0, 'age': '5'"),
        ("Bad.conditions = Bad.conditions[:1] * 2", "of different names"),
        ("Bad.conditions = ('angle',)", "of different names"),
        (
            "Bad.conditions = (ssmdiff.Condition('label', 'label', ('a', 'b')),)",
            "another name: that is the class",
        ),
    ],
)
def test_lies_about_what_is_told(install, lie: str, said: str | None) -> None:
    source = DATASET.replace("            return ImageItem(image, label)\n", TOLD.lstrip("\n"))
    source = source.replace("class_names = ()\n", CONDITIONS)
    source = source.replace("            {item}\n            told", "            told")
    install("ssmdiff-bad", source.format(item=lie, fingerprint="'abc'"))
    found = failures(check_dataset("bad"))
    if said is None:
        assert not found
    else:
        assert said in found["conditions"]


def test_what_is_told_differently_each_time(install) -> None:
    source = DATASET.replace(
        "ImageItem(image, label)", "ImageItem(image, label, {{'a': next(TIME)}})"
    )
    source = source.replace(
        "    class Bad:", "    import itertools\n    TIME = itertools.count()\n\n    class Bad:"
    )
    source = source.replace(
        "class_names = ()\n",
        "class_names = ()\n        conditions = (ssmdiff.Condition('a', 'number', high=1e6),)\n",
    )
    install("ssmdiff-bad", source.format(item="", fingerprint="'abc'"))
    found = failures(check_dataset("bad"))
    assert "differ in 'a'" in found["determinism"]


@pytest.mark.parametrize("value", ["str(id(self))", "''", "7"])
def test_a_fingerprint_that_changes_or_is_no_word(install, value: str) -> None:
    install("ssmdiff-bad", DATASET.format(item="", fingerprint=value))
    assert "fingerprint" in failures(check_dataset("bad"))


SCHEDULER = """
    import numpy as np
    import torch
    import ssmdiff

    def bad(betas, prediction_type: str):
        inner = ssmdiff.make_scheduler({{"name": "ddim"}}, betas, {prediction})

        class Bad(type(inner)):
            {body}

        inner.__class__ = Bad
        return inner

    @ssmdiff.hookimpl
    def ssmdiff_schedulers():
        yield ssmdiff.Component("bad", bad, "does something wrong")
"""


def body(signature: str, *lines: str) -> dict[str, str]:
    return {"body": f"\n{' ' * 16}".join([f"def {signature}:", *lines])}


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({}, None, ""),
        (
            body(
                "set_timesteps(self, steps)",
                "super().set_timesteps(steps)",
                "self.timesteps = self.timesteps - self.timesteps[-1]",
                "self.timesteps *= 0.5",
            ),
            "timesteps",
            "a start at the noisy end",
        ),
        ({"prediction": "'epsilon'"}, "distribution", "for prediction 'sample'"),
        ({"body": "set_timesteps = None"}, "protocol", "there is no method 'set_timesteps'"),
        (
            body("scaled(self, x, i)", "return 2 * x"),
            "noise",
            "the network first sees noise of spread 1.996",
        ),
        (
            body(
                "step(self, output, i, x, noise)", "return super().step(output, i, x, noise) + 0.01"
            ),
            "noise",
            "10 steps end 0.01 away from it",
        ),
        (
            body(
                "step(self, output, i, x, noise)",
                "t, back = int(self.timesteps[i]), 1000 // len(self.timesteps)",
                "then = self.alpha_bar[t - back] if t >= back else 1.0",
                "self.path[i : i + 2] = [float(self.alpha_bar[t]), float(then)]",
                "return super().step(output, i, x, noise)",
            ),
            "distribution",
            "step to the timestep that the network is told next",
        ),
        (
            body(
                "step(self, output, i, x, noise)",
                "x = super().step(output, i, x, noise)",
                "return x if isinstance(x, np.ndarray) else 0.99 * x",
            ),
            "arrays",
            "in numpy and in torch the images are",
        ),
        (
            body("scaled(self, x, i)", "return x + 1e-6 * float(torch.randn(()))"),
            "independence",
            "moved a global random state",
        ),
    ],
)
def test_schedulers(install, change: dict[str, str], check: str | None, said: str) -> None:
    parts = {"body": "pass", "prediction": "prediction_type"} | change
    install("ssmdiff-bad", SCHEDULER.format(**parts))
    found = failures(check_scheduler("bad"))
    if check is None:
        assert not found
    else:
        assert said in found[check]


BACKBONE = """
    import torch
    import ssmdiff
    from ssmdiff.errors import ConfigError
    from ssmdiff import own_orders
    from ssmdiff.nn import orders_of
    from ssmdiff.orders.scan import ScanSlot

    class Bad(torch.nn.Module):
        def __init__(self, in_channels, out_channels, scan, block, context_channels=0):
            super().__init__()
            self.scan = scan
            self.enter = torch.nn.Conv2d(in_channels, 8, 1)
            self.time = torch.nn.Linear(1, 8)
            self.label = torch.nn.Linear(context_channels, 8) if context_channels else None
            self.blocks = torch.nn.ModuleList([{first}, block(8, 8, slot=2)])
            self.leave = torch.nn.Conv2d(8, out_channels, 1)

        def scan_slots(self, image_size):
            {slots}
            return [ScanSlot(tuple(image_size))] * 4

        def forward(self, x, timesteps, context=None, orders=None):
            {before}
            slots = self.scan_slots(tuple(x.shape[2:]))
            if orders is None:
                orders = own_orders(self.scan, slots, x.device)
            t = torch.log1p(timesteps.reshape(-1, 1).to(x.dtype).expand(len(x), 1))
            time = self.time(t)
            if self.label is not None:
                time = time + self.label(context)
            h = self.enter(x)
            for i, block in enumerate({blocks}):
                h = block(h, time, {given})
            {after}
            return self.leave(h)

    @ssmdiff.hookimpl
    def ssmdiff_backbones():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
REFUSE = "if image_size[0] % 8: raise {error}('sides are multiples of 8')"


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({"slots": REFUSE.format(error="ConfigError")}, None, ""),
        ({"slots": REFUSE.format(error="ValueError")}, "refusals", "ValueError: sides are"),
        ({"slots": "raise ConfigError('never')"}, "sizes", "refuses all of 8 x 8"),
        ({"slots": "return [ScanSlot(tuple(image_size))] * 5"}, "slots", "as scan_slots says"),
        ({"slots": "return [ScanSlot(tuple(image_size))] * 5"}, "building", "the slots [0, 2]"),
        ({"slots": "return [ScanSlot(tuple(image_size)[::-1])] * 4"}, "slots", "on the grids"),
        ({"slots": "return [ScanSlot(tuple(image_size))] * 3"}, "slots", "is given 1 orders"),
        (
            {"before": "orders = orders and orders[::-1]"},
            "slots",
            "slot 0 is given another order",
        ),
        ({"before": "orders = None"}, "slots", "slot 0 is given another order"),
        ({"blocks": "reversed(self.blocks)"}, None, ""),  # each gets its own
        (
            {"given": "orders[2 * i : 2 * i + 2]", "blocks": "self.blocks[::-1]"},
            "slots",
            "slot 0 is",
        ),
        ({"first": "block(8, 8, slot=1)"}, "building", "built for the slots [1, 2]"),
        ({"before": "assert timesteps.dim() == 1"}, "timesteps", "AssertionError"),
        ({"before": "timesteps = timesteps * 0"}, "timesteps", "other timesteps give the same"),
        ({"before": "context = context and context * 0"}, "context", "Boolean value"),
        ({"after": "h = h + h.mean(0)"}, "batch", "an image alone and in a batch of 3 differ"),
        ({"after": "h = h.detach()"}, "gradients", "parameter 'enter.weight'"),
        ({"after": "h = h + torch.rand(())"}, "determinism", "two calls with the same arguments"),
    ],
)
def test_backbones(install, change: dict[str, str], check: str | None, said: str) -> None:
    parts = {"slots": "", "before": "", "blocks": "self.blocks", "after": ""}
    parts |= {"first": "block(8, 8, slot=0)", "given": "orders_of(block, orders)"} | change
    install("ssmdiff-bad", BACKBONE.format(**parts))
    found = failures(check_backbone("bad"))
    if check is None:
        assert not found
    else:
        assert any(words in found[check] for words in said.split("|"))


def test_a_report_is_a_list_that_a_person_can_act_on() -> None:
    report = Report(
        "scan 'x' (ssmdiff-x 1.0)",
        (
            Finding("grids", True, "serves 3"),
            Finding("continuity", True, "does not say so", skipped=True),
            Finding("inverse", False, "got a; expected b. Try: c"),
        ),
    )
    assert str(report).splitlines() == [
        "scan 'x' (ssmdiff-x 1.0): 3 checks, 1 failed, 1 skipped",
        "  ok    grids          serves 3",
        "  skip  continuity     does not say so",
        "  FAIL  inverse        got a; expected b. Try: c",
    ]
    assert [finding.name for finding in report] == ["grids", "continuity", "inverse"]
    assert len(report) == 3
    with pytest.raises(ContractError, match=r"1 failed.*\n  FAIL  inverse .*Try: c"):
        report.raise_for_failures()


def test_what_cannot_be_checked_is_a_configuration_error() -> None:
    for kind, spec, said in (
        ("scan", "regenrate", "did you mean 'regenerate'"),
        ("scan", {"name": "regenerate", "blok": 2}, "did you mean 'block'"),
        ("scam", "cross", "there is no kind 'scam'"),
    ):
        with pytest.raises(ConfigError, match=said):
            check(kind, spec)


def test_options_stand_in_the_report() -> None:
    report = check_scan({"name": "regenerate", "base": "raster", "block": 2})
    assert report.subject.endswith("with base = 'raster', block = 2")
    report.raise_for_failures()
