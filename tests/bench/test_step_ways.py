"""What is compared in `bench step`: networks of equal size that learn."""

from __future__ import annotations

import pytest
import torch
from ssmdiff.errors import ConfigError
from ssmdiff_bench import step
from ssmdiff_bench.record import Record, Row
from ssmdiff_bench.timing import Timing

TINY = step.StepShape("tiny", channels=8)


def needs(name):
    for package in step.NEEDED[name.partition("-")[0]]:
        pytest.importorskip(package)


@pytest.mark.parametrize("name", step.OTHERS)
@pytest.mark.parametrize(
    "shape",
    [
        step.StepShape("tiny", 8),
        *(
            pytest.param(shape, marks=pytest.mark.slow)
            for shape in (
                step.StepShape("tiny"),
                step.StepShape("small"),
                step.StepShape("small", 32),
                step.StepShape("tiny", 16),
            )
        ),
    ],
    ids=lambda s: f"{s.preset}-{s.channels}",
)
def test_widths_are_found_at_which_parameters_are_equal(name, shape):
    needs(name)
    with torch.device("meta"):
        target = step.parameters(step.our_network(shape, 64))
        layers, ratios = shape.option("layers"), shape.option("widths")
        widths = step.fit_widths(lambda w: step.other_network(name, w, layers), ratios, target)
        count = step.parameters(step.other_network(name, widths, layers))
    assert abs(count - target) <= 0.02 * target
    assert len(widths) == len(ratios)
    scale = widths[-1] / ratios[-1]
    assert all(abs(w - r * scale) <= 2 * step.GROUPS for w, r in zip(widths, ratios, strict=True))


def test_widths_that_cannot_be_equal_are_refused():
    with pytest.raises(ConfigError, match=r"within 2% of 1003"):
        step.fit_widths(lambda w: torch.nn.Linear(w[0], w[0]), (1, 2), 1003)


@pytest.mark.parametrize("name", step.OTHERS)
def test_attention_is_there_or_not(name):
    needs(name)
    with torch.device("meta"):
        model = step.other_network(name, (8, 16, 32), 1)
    attentions = [m for m in model.modules() if type(m).__name__ in ("SABlock", "Attention")]
    # down, middle, and one more up than down, at two levels
    assert len(attentions) == (2 + 1 + 4 if name.endswith("attention") else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [step.OURS, step.TWIN, *step.OTHERS])
def test_a_step_learns_and_leaves_no_gradients(name):
    if name in step.OTHERS:
        needs(name)
    shape = step.StepShape("small", channels=8)
    job = step._load(name, shape, {"series": "step", "side": 16, "size": 256})
    optimizer = next(
        cell.cell_contents for cell in job.call.__closure__
        if isinstance(cell.cell_contents, torch.optim.Optimizer)
    )  # fmt: skip
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in weights]
    job.call()
    changed = [not torch.equal(a, b) for a, b in zip(before, weights, strict=True)]
    assert sum(changed) / len(changed) > 0.3
    assert all(p.grad is None for p in weights)
    assert job.facts["parameters"] == sum(p.numel() for p in weights)


def test_a_stem_that_halves_has_a_twin_of_full_resolution():
    small = {way.name for way in step.step_ways(step.StepShape("small"))}
    tiny = {way.name for way in step.step_ways(TINY)}
    assert step.TWIN in small
    assert step.TWIN not in tiny
    with torch.device("meta"):
        model = step.our_network(step.StepShape("small"), 32, full_resolution=True)
    assert model.scan_slots((32, 32))[0].grid == (32, 32)


def test_growth_of_each_network():
    rows = [
        Row(name, "step", side * side, timing=Timing((side**power,)))
        for name, power in (("linear", 2), ("quadratic", 4))
        for side in (64, 128, 256)
    ]
    rows.append(Row("once", "step", 4096, timing=Timing((1.0,))))
    found = step.growths(Record("step", {}, {}, rows))
    assert found == {"linear": pytest.approx(1), "quadratic": pytest.approx(2), "once": None}
