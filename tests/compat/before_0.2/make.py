"""Makes the fixtures of this folder. Run at commit 2e4ffc4; it cannot be run later.

They hold the project before its packages were moved and its samplers rewritten to what it promises:
a run made before resumes to the same bits, and its samples and ONNX files give the same images.
This script therefore uses names that later commits no longer have; it stays as the record of how
the files came about::

    git clone . OLD && cd OLD && git checkout 2e4ffc4 && make .venv/.developed
    .venv/bin/python before_0.2/make.py before_0.2

The last thing it does is to resume a copy of every run and to hold it against the record.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import save_file
from ssmdiff import checkpoint
from ssmdiff.ops import use_kernel
from ssmdiff.runs import load_run
from ssmdiff_export.model_file import open_model
from ssmdiff_export.runtime import OnnxSampler
from torch import Tensor

DIGITS = 16
"""Of a sha256 in hexadecimal: 64 bits tell two tensors apart, and the files stay small."""
SEED = 0
IMAGES = 2
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
LINES = 8
"""Of ``metrics.jsonl`` that a run folder keeps."""

Images = NDArray[np.float32]
Table = dict[str, Any]


class Recipe(NamedTuple):
    """One run: what is set over the preset ``tiny`` at 16 x 16, and where it is cut."""

    settings: tuple[str, ...]
    kept: int
    """The step of the one checkpoint in the run folder."""
    steps: int
    """The step at which the run ends."""
    label: int | None = None
    """The class of its samples."""


EVERYWHERE = (
    "data.image_size=16",
    "train.batch_size=4",
    "train.callbacks=[]",
    "train.bound_images=0",
    "train.sample_every=0",
    "train.keep_checkpoints=2",
    "sample.steps=10",
    "sample.count=2",
)
# Long enough that the network decides what the images are, and at a rate that still moves it.
TRAINED = (
    "train.schedule=constant",
    "train.warmup_steps=0",
    "train.learning_rate=4e-3",
    "train.ema_decay=0.95",
)
UNET = ("model.backbone.channels=4", "model.block.state=4")
EIGHT = "{name='zigzag', by_layer=false}"
STACK = "model.backbone={name='isotropic', channels=8, depth=3, patch=2}"
RECIPES = {
    "regenerate": Recipe((*TRAINED, *UNET, "model.backbone.widths=[1, 1]"), 200, 204),
    "atrous": Recipe(
        (
            *TRAINED,
            *UNET,
            "model.backbone.widths=[1]",
            "model.scan={name='atrous', step=2}",
            "model.class_conditional=true",
        ),
        200,
        204,
        label=1,
    ),
    "cosine-v": Recipe(
        (
            *TRAINED,
            *UNET,
            "model.backbone.widths=[1]",
            "diffusion.beta_schedule=cosine",
            "diffusion.prediction=v_prediction",
        ),
        200,
        204,
    ),
    "zigzag-mamba": Recipe(
        (STACK, "model.block={name='mamba', state=4}", "model.scan=zigzag", "train.warmup_steps=2"),
        4,
        8,
    ),
    # Blocks of 4, 8 and 1 directions: each is built for the scan of its own slot.
    "layers-mamba2": Recipe(
        (
            STACK,
            "model.block={name='mamba2', state=4, chunk=16, head_channels=4}",
            f"model.scan={{name='layers', scans=['cross', {EIGHT}, 'raster']}}",
            "train.warmup_steps=2",
            "train.weight_decay=0.1",
        ),
        4,
        8,
    ),
}
SAMPLED = ("regenerate", "atrous", "cosine-v")
EXPORTED = ("regenerate", "atrous")

SCHEDULERS = ("ddpm", "ddim", "dpmpp", "unipc", "euler", "heun")
OPTIONS: dict[str, Table] = {
    "ddpm-fixed_large": {"name": "ddpm", "variance": "fixed_large"},
    "ddpm-unclipped": {"name": "ddpm", "clip_sample": False},
    "ddim-unclipped": {"name": "ddim", "clip_sample": False},
    "dpmpp-order_3": {"name": "dpmpp", "order": 3},
    "dpmpp-order_3-karras": {"name": "dpmpp", "order": 3, "karras": True},
    "euler-karras": {"name": "euler", "karras": True},
}
OF_FILES: dict[str, Table] = {
    **{name: {"name": name} for name in SCHEDULERS if name != "unipc"},
    "ddim-unclipped": OPTIONS["ddim-unclipped"],
}
"""Those that an ONNX file is sampled with: unipc has no form without torch."""


def main(out: Path) -> None:
    torch.manual_seed(SEED)
    for name in ("trained", "ends", "samples", "onnx"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    write_json(out / "machine.json", machine())
    for name, recipe in RECIPES.items():
        make_run(out, name, recipe)
    write_json(out / "samples" / "index.json", {n: draw_from_run(out, n) for n in SAMPLED})
    for name in EXPORTED:
        export(out, name)
    for name, recipe in RECIPES.items():
        check_resume(out, name, recipe)


def command(*arguments: object) -> None:
    """The console command, in a process of its own."""
    subprocess.run([sys.executable, "-m", "ssmdiff_cli.main", *map(str, arguments)], check=True)


# Runs


def make_run(out: Path, name: str, recipe: Recipe) -> None:
    """Train to the end, note what the end is, and leave the run as it was in the middle."""
    folder = out / "trained" / name
    cut = f"train.checkpoint_every={recipe.kept}"
    sets = [f"--set={text}" for text in (*EVERYWHERE, cut, *recipe.settings)]
    new = ("train", "--preset", "tiny", "--out", folder, *sets, "--steps")
    if name in SAMPLED:
        command(*new, 1)
        emphasise_scan(folder)
        command("train", "--out", folder, "--resume", "--steps", recipe.steps)
    else:
        command(*new, recipe.steps)
    write_json(out / "ends" / f"{name}.json", end_of(folder, recipe))
    end = checkpoint.verify(folder / "checkpoints" / step_name(recipe.steps))
    save_file(end.tensors("model"), out / "ends" / f"{name}.safetensors")

    shutil.rmtree(end.path)
    for picture in (folder / "samples").iterdir():
        picture.unlink()
    (folder / "samples" / ".gitkeep").touch()  # a run that is resumed needs the folder
    (folder / "loss.png").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[recipe.kept - LINES : recipe.kept]))


def emphasise_scan(folder: Path) -> None:
    """Enlarge the weights round the scan after a run's first step: another order is another image.

    A network of this size otherwise learns to do without its scan, and wrong orders would not show.
    """
    first = checkpoint.verify(folder / "checkpoints" / step_name(1))
    tensors = {file: first.tensors(file) for file in ("model", "ema", "optimizer")}
    for file in ("model", "ema"):
        for parameter, value in tensors[file].items():
            if parameter.endswith(("x_proj.weight", "out_proj.weight")):
                value.mul_(16)
            elif parameter.endswith("dt_bias"):
                value.add_(3)
    checkpoint.save(first.path.parent, first.step, tensors, first.state())


def end_of(folder: Path, recipe: Recipe) -> Table:
    """What a run is at its end: digests by tensor, and the losses after the kept checkpoint.

    ``parameters`` are their names in the order in which the model walks them.
    """
    end = checkpoint.verify(folder / "checkpoints" / step_name(recipe.steps))
    state = end.state()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "images_seen", "loss", "learning_rate", "gradient_norm")
    return {
        "kept_step": recipe.kept,
        "step": state["step"],
        "images_seen": state["images_seen"],
        "ema_updates": state["ema_updates"],
        "kernels": state["provenance"]["kernels"],
        "metrics": [{k: line[k] for k in keys} for line in lines if line["step"] > recipe.kept],
        "tensors": digests(end),
        "parameters": [
            name for name, _ in load_run(folder, end.path.name).model.named_parameters()
        ],
    }


def digests(found: checkpoint.Checkpoint) -> dict[str, list[str]]:
    """By parameter: model, ema, and the optimiser's step, exp_avg and exp_avg_sq."""
    model, ema, optimizer = (found.tensors(file) for file in ("model", "ema", "optimizer"))
    return {
        name: [
            digest(value)
            for value in (model[name], ema[name], *(optimizer[f"{name}/{key}"] for key in MOMENTS))
        ]
        for name in sorted(model)
    }


def check_resume(out: Path, name: str, recipe: Recipe) -> None:
    """Resume a copy of the run folder by the command; every bit is as it was."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / name
        shutil.copytree(out / "trained" / name, copy)
        command("train", "--out", copy, "--resume")
        found, wanted = end_of(copy, recipe), read_json(out / "ends" / f"{name}.json")
    if found != wanted:
        differing = [key for key in wanted if found[key] != wanted[key]]
        raise SystemExit(f"{name}: the resumed run differs in {differing}")
    print(f"{name}: resumed to the same bits")


def step_name(step: int) -> str:
    return f"step-{step:08d}"


# Samples


def draw_from_run(out: Path, name: str) -> Table:
    """Images of the kept checkpoint, and a table of what each key of the files is.

    ``kernels_apart`` is how far two kernels of the scan put the images apart: what rounding does.
    """
    run, label = load_run(out / "trained" / name), RECIPES[name].label
    wanted: dict[str, tuple[Table, int]] = {
        **{f"{s}-{n}": ({"name": s}, n) for s in SCHEDULERS for n in (10, 50)},
        **{f"{key}-10": (table, 10) for key, table in OPTIONS.items()},
        "ddim-unclipped-50": (OPTIONS["ddim-unclipped"], 50),
    }
    uneven = {f"{s}-30": ({"name": s}, 30) for s in ("ddim", "ddpm")}
    index: Table = {}
    for file, group in ((name, wanted), (f"{name}-uneven-differs-by-design", uneven)):
        drawn: dict[str, Images] = {}
        for key, (table, steps) in group.items():
            row: Table = {"file": f"{file}.npz", "scheduler": table, "steps": steps, "label": label}
            draw = functools.partial(run.sample, IMAGES, seed=SEED, label=label, batch_size=IMAGES)
            try:
                images = draw(steps=steps, scheduler=table).numpy()
                with use_kernel("torch"):
                    rounded = draw(steps=steps, scheduler=table).numpy()
            except Exception as error:  # a fault of the old samplers, told in the table
                row["failed"] = f"{type(error).__name__}: {error}"
            else:
                drawn[key] = images
                row["between_black_and_white"] = inner_share(images)
                row["kernels_apart"] = float(np.abs(images - rounded).max())
            index[key] = row | (
                {"by_design": reason} if (reason := departure(table, steps)) else {}
            )
        save_arrays(out / "samples" / f"{file}.npz", drawn)
    return index


def departure(table: Table, steps: int) -> str | None:
    """Why a later sampler gives other images on purpose, if it does."""
    if 1000 % steps:
        return "the old steps go back by T // steps and not to the next timestep"
    if table["name"] == "ddim" and table.get("clip_sample", True):
        return "where the old step clips x_0 it keeps the eps of the x_0 that was not clipped"
    if table.get("variance") == "fixed_large":
        return "the old last step adds noise"
    return None


def inner_share(images: Images) -> float:
    """The share of pixels that the last clipping leaves alone."""
    return round(float((np.abs(images) < 1).mean()), 4)


# ONNX files


def export(out: Path, name: str) -> None:
    """The file by the command, what is in it, the images that it draws, and for one its output."""
    path = out / "onnx" / f"{name}.onnx"
    command("export", out / "trained" / name, "--to", "onnx", "--out", path)
    sampler, label = OnnxSampler(path), RECIPES[name].label
    drawn: dict[str, Images] = {}
    apart: dict[str, float] = {}
    for key, table in OF_FILES.items():
        images = sampler.sample(
            IMAGES, seed=SEED, steps=10, scheduler=table, label=label, batch_size=IMAGES
        )
        in_torch = open_model(path).sample(
            IMAGES, seed=SEED, steps=10, scheduler=table, label=label, batch_size=IMAGES
        )
        drawn[f"{key}-10"] = images
        apart[f"{key}-10"] = float(np.abs(images - in_torch.numpy()).max())
    save_arrays(path.with_suffix(".npz"), drawn)
    write_json(path.with_suffix(".json"), {**contents(path), "label": label, "apart": apart})
    if name == EXPORTED[0]:
        save_arrays(path.with_name(f"{name}-session.npz"), one_call(sampler))


def contents(path: Path) -> Table:
    """The graph as a table: how many nodes of each kind, and every weight's digest."""
    proto = onnx.load(path)
    graph = proto.graph
    return {
        "data_file_beside": path.with_name(f"{path.name}.data").exists(),
        "opsets": {entry.domain: entry.version for entry in proto.opset_import},
        "inputs": [value.name for value in graph.input],
        "functions": sorted(f"{function.domain}::{function.name}" for function in proto.functions),
        "nodes": dict(sorted(Counter(f"{n.domain}::{n.op_type}" for n in graph.node).items())),
        "initializers": {
            value.name: digest_of(numpy_helper.to_array(value).tobytes())
            for value in sorted(graph.initializer, key=lambda value: value.name)
        },
    }


def one_call(sampler: OnnxSampler) -> dict[str, NDArray[Any]]:
    """Fixed inputs of the graph by name, and its ``prediction``."""
    rng = np.random.default_rng(SEED)
    inputs: dict[str, NDArray[Any]] = {
        "x": rng.standard_normal((IMAGES, *sampler.card.shape), dtype=np.float32),
        "timesteps": np.array([10, 900], np.float32),
    }
    for i, slot in enumerate(sampler.card.slots):
        recipe = sampler.card.recipes[slot.recipe or ""]
        order = recipe.draw(np.random.default_rng(i))
        assert order.restart is None
        inputs[slot.order or ""] = np.array(order.index, np.int32)
    return inputs | {"prediction": sampler.run(inputs)}


# Records


def machine() -> Table:
    packages = ("ssmdiff", "torch", "numpy", "diffusers", "numba", "onnx", "onnxruntime")
    return {
        "commit": "2e4ffc4",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def digest(value: Tensor) -> str:
    return digest_of(value.contiguous().numpy().tobytes())


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez_compressed(path, allow_pickle=False, **arrays)


def write_json(path: Path, value: Table) -> None:
    """A line for every key; lists, such as those of digests, stay on theirs."""
    path.write_text(compact(value) + "\n")


def compact(value: Any, indent: str = "") -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    rows = (f"{indent} {json.dumps(k)}: {compact(v, indent + ' ')}" for k, v in value.items())
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def read_json(path: Path) -> Table:
    value: Table = json.loads(path.read_text())
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
