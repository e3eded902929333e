"""``ssmdiff bench step``: a training step of VM-DDPM's UNet and of others of equal size.

The others have as many levels, the same ratio of widths and as many layers of a level as VM-DDPM's
UNet in the preset, and a width at which they have as many parameters. Attention stands at all
levels but the first, as in MONAI's tutorial of a 2-D DDPM and in diffusers' default; it is
``scaled_dot_product_attention`` with one head in both, their fastest form.

NOTE(paper): VM-DDPM's stem halves the image before the first level, which the others do not. Where
the preset's stem does so, a twin whose stem keeps the full resolution is measured too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ssmdiff import (
    Config,
    ConfigError,
    build_backbone,
    job,
    load_preset,
    merge,
    order_plan,
    order_tensors,
    resolve,
)
from torch import Tensor, nn

from ssmdiff_bench.record import Record, growth
from ssmdiff_bench.worker import Case, Job, Way

CLOSE = 0.02  # how far the parameters of two networks may be apart
GROUPS = 4  # of the others' group norms; widths are multiples of it
SERIES = "step"
SHOWN = ("parameters",)
OURS, TWIN = "vmddpm", "vmddpm-full-resolution"
NEEDED = {"monai": ("monai", "einops"), "diffusers": ("diffusers",)}
OTHERS = ("monai-attention", "monai", "diffusers-attention", "diffusers")


@dataclass(frozen=True)
class StepShape:
    """What is trained.

    Args:
        preset: Gives VM-DDPM's UNet: widths, layers, block, scan, stem.
        channels: Of its first level; None for the preset's.
        batch: Images of a step.
        precision: ``fp32``, or ``bf16`` by autocast.
        device: ``cpu`` or ``cuda``.
    """

    preset: str = "small"
    channels: int | None = None
    batch: int = 1
    precision: str = "fp32"
    device: str = "cpu"

    def config(self, pixels: int, full_resolution: bool = False) -> Config:
        """The preset at an image size.

        Raises:
            ConfigError: The preset or an option is wrong.
        """
        layer = merge(load_preset(self.preset), {"data": {"image_size": pixels}})
        backbone: dict[str, Any] = {} if self.channels is None else {"channels": self.channels}
        if full_resolution:
            backbone["stem_stride"] = 1
        layer = merge(layer, {"model": {"backbone": backbone}})
        return resolve(layer, {"train": {"callbacks": []}})

    def option(self, name: str) -> Any:
        """An option of the preset's backbone, given or by default."""
        return self.config(64).model.backbone[name]


def cases(pixels: Sequence[int]) -> list[dict[str, Any]]:
    """Sides of square images, from the smallest; ``size`` counts pixels."""
    return [{"series": SERIES, "size": side * side, "side": side} for side in sorted(pixels)]


def step_ways(shape: StepShape) -> list[Way]:
    """VM-DDPM's UNet, its twin where the stem halves, and the others; absent ones say why."""
    ways = [Way(OURS, functools.partial(_load, OURS, shape))]
    if shape.option("stem_stride") > 1:
        ways.append(Way(TWIN, functools.partial(_load, TWIN, shape)))
    for name in OTHERS:
        needed = NEEDED[name.partition("-")[0]]
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        absent = None
        if missing:
            them = " ".join(missing)
            absent = f"it needs what is not installed; try: pip install {them}"
        ways.append(Way(name, functools.partial(_load, name, shape), absent))
    return ways


def parameters(model: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def our_network(shape: StepShape, pixels: int, full_resolution: bool = False) -> nn.Module:
    """VM-DDPM's UNet of one-channel images."""
    return build_backbone(shape.config(pixels, full_resolution), 1)


def check(shape: StepShape, side: int) -> None:
    """Refuse what our network cannot be.

    Raises:
        ConfigError: The preset or the channels are wrong, or the strides do not divide the side.
    """
    with torch.device("meta"):
        our_network(shape, side)


def fit_widths(
    build: Callable[[tuple[int, ...]], nn.Module], ratios: Sequence[int], target: int
) -> tuple[int, ...]:
    """Widths in the given ratio at which a network has as many parameters as another.

    Each is rounded to a multiple of :data:`GROUPS`, so the ratio is kept to about that. Networks
    are built on the meta device, where nothing is computed or stored.

    Args:
        build: Of the widths.
        ratios: Of the widths to the first.
        target: Parameters.

    Raises:
        ConfigError: No widths come within :data:`CLOSE`.
    """

    def at(scale: float) -> tuple[int, ...]:
        return tuple(max(GROUPS, round(scale * r / GROUPS) * GROUPS) for r in ratios)

    @functools.cache
    def count(widths: tuple[int, ...]) -> int:
        with torch.device("meta"):
            return parameters(build(widths))

    low, high = 1.0, 2.0
    while count(at(high)) < target:
        low, high = high, 2 * high
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (middle, high) if count(at(middle)) < target else (low, middle)
    near = {at(low + d) for d in (-1.0, -0.5, 0.0, 0.5, 1.0)}
    best = min(near, key=lambda widths: abs(count(widths) - target))
    if abs(count(best) - target) > CLOSE * target:  # small networks: one level wider or narrower
        steps = itertools.product((-GROUPS, 0, GROUPS), repeat=len(best))
        near = {tuple(max(GROUPS, w + d) for w, d in zip(best, s, strict=True)) for s in steps}
        best = min(near, key=lambda widths: abs(count(widths) - target))
    if abs(count(best) - target) > CLOSE * target:
        raise ConfigError(
            f"no widths in the ratio {tuple(ratios)} give within {CLOSE:.0%} of {target} "
            f"parameters; nearest: {best} with {count(best)}. Try a larger --channels"
        )
    return best


def other_network(name: str, widths: tuple[int, ...], layers: int) -> nn.Module:
    """MONAI's or diffusers' UNet of one-channel images, with or without attention.

    MONAI's has attention in its middle always; without attention that is taken out.
    """
    attention = name.endswith("-attention")
    levels = tuple(attention and i > 0 for i in range(len(widths)))
    if name.startswith("monai"):
        monai = importlib.import_module("monai.networks.nets.diffusion_model_unet")
        model: nn.Module = monai.DiffusionModelUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            num_res_blocks=layers,
            channels=widths,
            attention_levels=levels,
            num_head_channels=widths,
            norm_num_groups=GROUPS,
            use_flash_attention=True,
        )
        if not attention:
            middle: Any = model.middle_block
            middle.attention = nn.Identity()
        return model
    down = tuple("AttnDownBlock2D" if level else "DownBlock2D" for level in levels)
    up = tuple("AttnUpBlock2D" if level else "UpBlock2D" for level in reversed(levels))
    diffusers: nn.Module = importlib.import_module("diffusers").UNet2DModel(
        in_channels=1,
        out_channels=1,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=widths,
        layers_per_block=layers,
        attention_head_dim=None,
        norm_num_groups=GROUPS,
        add_attention=attention,
    )
    return diffusers


def growths(record: Record) -> dict[str, float | None]:
    """For each network the exponent p of time ~ pixels^p over the sizes that it ran."""
    return {
        way: growth(
            [(r.size, r.timing.median_s) for r in record.measured() if r.way == way and r.timing]
        )
        for way in dict.fromkeys(row.way for row in record.measured())
    }


def _load(name: str, shape: StepShape, case: Case) -> Job:
    """In the worker: network, optimiser, a batch, and the step."""
    torch.manual_seed(0)
    side = case["side"]
    config = shape.config(side, name == TWIN)
    facts: dict[str, Any] = {"side": side}
    if name in (OURS, TWIN):
        model = our_network(shape, side, name == TWIN)
    else:
        with torch.device("meta"):
            target = parameters(our_network(shape, 64))
        build = functools.partial(other_network, name, layers=shape.option("layers"))
        widths = fit_widths(lambda w: build(widths=w), shape.option("widths"), target)
        facts["widths"] = list(widths)
        model = build(widths=widths)
    facts["parameters"] = parameters(model)
    model.train().to(shape.device)
    optimizer = job("train").build_optimizer(model, config.train)
    shown = (shape.batch, 1, side, side)
    x, noise = (torch.randn(shown, device=shape.device) for _ in range(2))
    t = torch.randint(0, 1000, (shape.batch,), device=shape.device)
    plan = order_plan(model, config) if name in (OURS, TWIN) else None
    steps = iter(range(1 << 62))

    def predict() -> Tensor:
        if plan is None:
            found = model(x, t)
            return found if isinstance(found, Tensor) else found.sample  # type: ignore[no-any-return]
        orders = order_tensors(plan.draw(next(steps)), x.device)
        return model(x=x, timesteps=t, orders=orders)  # type: ignore[no-any-return]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(shape.device, torch.bfloat16, enabled=shape.precision == "bf16"):
            prediction = predict()
        (prediction.float() - noise).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # makes the optimiser's state, which is no memory of a step
    return Job(
        step,
        device=shape.device,
        synchronize=torch.cuda.synchronize if shape.device == "cuda" else None,
        facts=facts,
    )
