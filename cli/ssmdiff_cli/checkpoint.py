"""``ssmdiff checkpoint verify``: hold every checkpoint of a run against its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from ssmdiff.errors import CheckpointError

app = typer.Typer(
    help="Look after checkpoints.", no_args_is_help=True, add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip


@app.callback()
def root() -> None:
    """Look after checkpoints."""


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A run, a folder of checkpoints, or one of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """Say of each checkpoint whether it is whole: files, sizes, sha256, and finite weights.

    Exit code 1 if one of them is not, or if there is none.
    """
    found = list(_findings(path))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for one in found:
            typer.echo(f"{'ok' if one['ok'] else 'BAD':4}{one['path']}: {one['found']}")
    bad = sum(not one["ok"] for one in found)
    if not found:
        raise CheckpointError(f"there is no checkpoint in {path}; expected a run or step-NNNNNNNN")
    if bad:
        raise CheckpointError(
            f"{bad} of {len(found)} are not whole. A run goes on from the newest that is: "
            "ssmdiff train --out RUN --resume"
        )


def _findings(path: Path) -> Iterator[dict[str, Any]]:
    from ssmdiff.runs import checkpoint, replacing

    for folder in _folders(path):
        try:
            found = checkpoint.verify(folder)
            files = found.manifest["files"]
            stored = [name for name in files if name.endswith(".safetensors")]
            tensors = (found.tensors(name.removesuffix(".safetensors")) for name in stored)
            held = sum(tensor.numel() for group in tensors for tensor in group.values())
            step = found.state().get("step", found.step)
            if step != found.step:
                raise CheckpointError(f"its state is of step {step}, and its name of {found.step}")
            size = sum(entry["bytes"] for entry in files.values())
            yield _of(folder, True, f"{len(files)} files, {held:,} values, {size:,} bytes")
        except CheckpointError as error:
            yield _of(folder, False, str(error))
    kept = replacing.kept(path)
    if kept is not None:
        yield from _findings(kept)


def _of(folder: Path, ok: bool, found: str) -> dict[str, Any]:
    return {"path": str(folder), "ok": ok, "found": found}


def _folders(path: Path) -> list[Path]:
    """What is, or is named as if it were, a checkpoint; the oldest first.

    Raises:
        CheckpointError: There is nothing of that name.
    """
    if not path.is_dir():
        raise CheckpointError(f"there is no folder {path}")
    inside = path / "checkpoints"
    if (path / "manifest.json").exists() or path.name.startswith("step-"):
        return [path]
    where = inside if inside.is_dir() else path
    return sorted(p for p in where.iterdir() if p.name.startswith("step-"))
