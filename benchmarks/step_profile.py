"""Where a training step's time and memory go, by kind of operation.

    python benchmarks/step_profile.py --json benchmarks/results/step_profile.json

Forward, backward, clipping, AdamW and EMA, as the training loop runs them, of the presets `tiny`
and `small`. The shares come from torch.profiler and are the operators' own times; the step is
timed without it. Memory is what autograd keeps for the backward pass, each storage counted once.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import time
from pathlib import Path
from typing import Any

CASES = (("tiny", 32, 4), ("small", 64, 2), ("small", 128, 2))
"""Preset, side of the image in pixels, images a batch."""

KINDS = {
    "scan": ("ssmdiff::", "selective_scan"),
    "convolution": ("conv", "mkldnn"),
    "matrix products": ("mm", "linear", "dot"),
    "norms": ("norm",),
    "copies": ("copy", "clone", "contiguous", "cat", "fill_", "zero_"),
    "sums": ("sum", "mean"),
    "elementwise": ("mul", "add", "silu", "exp", "neg", "div", "lerp", "sqrt", "sub", "addc"),
}
"""Parts of an operator's name, looked for in this order."""


class Step:
    """A model of a preset with its optimiser and average, and one batch."""

    def __init__(self, preset: str, size: int, batch: int, checkpointing: bool) -> None:
        import torch
        from ssmdiff import order_tensors
        from ssmdiff.networks.backbone import checkpoint_activations
        from ssmdiff.runs import compose
        from ssmdiff.runs.config import load_preset, resolve
        from ssmdiff_train.optimizer import build_ema, build_optimizer

        self.config = resolve(load_preset(preset), {"data": {"image_size": size}})
        torch.manual_seed(0)
        self.model = compose.build_backbone(self.config, 1)
        if checkpointing:
            checkpoint_activations(self.model)
        self.ema = build_ema(self.model, self.config.train.ema_decay)
        self.optimizer = build_optimizer(self.model, self.config.train)
        self.plan = compose.order_plan(self.model, self.config)
        self.x = torch.randn(batch, 1, size, size)
        self.timesteps = torch.randint(0, 1000, (batch,))
        self.orders = lambda step: order_tensors(self.plan.draw(step), self.x.device)

    def loss(self, step: int) -> Any:
        y = self.model(x=self.x, timesteps=self.timesteps, orders=self.orders(step))
        return (y - self.x).square().mean()

    def update(self) -> None:
        import torch

        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.model)


def phases_ms(step: Step, repetitions: int) -> dict[str, float]:
    """Medians of the forward pass, the backward pass and the rest."""
    times: dict[str, list[float]] = {"forward": [], "backward": [], "update": []}
    for i in range(repetitions + 2):
        marks = [time.perf_counter()]
        loss = step.loss(i)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        step.update()
        marks.append(time.perf_counter())
        for j, name in enumerate(times):
            times[name].append(1e3 * (marks[j + 1] - marks[j]))
    return {name: round(statistics.median(ms[2:]), 1) for name, ms in times.items()}


def kind_of(name: str) -> str:
    return next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "other")


def shares(step: Step) -> tuple[dict[str, float], list[tuple[str, float, int]]]:
    """Per cent of the profiled time by kind, and the ten costliest operators with their calls."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for i in range(2):
            step.loss(i).backward()
            step.update()
    kinds: collections.Counter[str] = collections.Counter()
    for event in profiled.events():
        kind, parent = kind_of(event.name), event.cpu_parent
        while parent is not None and kind != "scan":
            kind = "around the scan" if kind_of(parent.name) == "scan" else kind
            parent = parent.cpu_parent
        kinds[kind] += event.self_cpu_time_total
    total = sum(kinds.values())
    rows = sorted(profiled.key_averages(), key=lambda row: -row.self_cpu_time_total)[:14]
    top = [(r.key, round(100 * r.self_cpu_time_total / total, 1), r.count // 2) for r in rows]
    return {k: round(100 * v / total, 1) for k, v in kinds.most_common()}, top


def saved_mb(step: Step) -> float:
    """What autograd keeps between the forward and the backward pass, without the parameters."""
    import torch

    own = {p.untyped_storage().data_ptr() for p in step.model.parameters()}
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = step.loss(0)
    del loss
    return round(sum(kept.values()) / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Profile a training step.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--case", type=int, nargs="+", default=range(len(CASES)))
    parser.add_argument("--activation-checkpointing", action="store_true")
    options = parser.parse_args()
    import torch
    from ssmdiff.runs.provenance import versions
    from ssmdiff_train.memory import keep_freed_memory

    keep_freed_memory()
    results = []
    for preset, size, batch in (CASES[i] for i in options.case):
        step = Step(preset, size, batch, options.activation_checkpointing)
        record: dict[str, Any] = {"preset": preset, "size_px": size, "batch": batch}
        for threads in options.threads:
            torch.set_num_threads(threads)
            record[f"ms, {threads} threads"] = phases_ms(step, options.repetitions)
        record["saved_MB"] = saved_mb(step)
        record["share_percent"], record["operators"] = shares(step)
        results.append(record)
        print(json.dumps(record, indent=1), flush=True)
    if options.json:
        text = json.dumps({"machine": versions(), "cases": results}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
