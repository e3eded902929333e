"""Checkpoints on disk: all or nothing, checked by hash, no pickle.

``step-00001000/`` holds safetensors files, ``state.json`` and ``manifest.json``. It is written as
``.tmp-...`` in the same folder, flushed, and renamed; the manifest, with the size and sha256 of
every file, comes last. A checkpoint exists if its name is right and its manifest verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ssmdiff.diffusion.conditions import LABEL, Condition, Conditions
from ssmdiff.errors import CheckpointError, ConfigError

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")
TEMPORARY = ".tmp-"
"""What a name starts with whose file or folder is being written or deleted."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest was verified."""

    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.path.name.partition("-")[2])

    def state(self) -> dict[str, Any]:
        """The JSON scalars."""
        return load_json(self.path / STATE)

    def images(self, state: Mapping[str, Any]) -> tuple[int, list[str]]:
        """C, and the names of the classes, as the state has them.

        Raises:
            CheckpointError: They are none; a file may say anything.
        """
        channels, names = state.get("channels"), state.get("class_names")
        words = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if type(channels) is not int or not 1 <= channels <= 4096 or not words:
            found = f"channels {channels!r} and class_names {names!r}"
            raise CheckpointError(
                f"{self.path / STATE}: {found:.300}; expected 1 to 4096 and words"
            )
        return channels, names or []

    def conditions(self, state: Mapping[str, Any], class_conditional: bool) -> Conditions:
        """What the model is told; in a state of before it stands in the configuration alone.

        Raises:
            CheckpointError: They are none; a file may say anything.
        """
        if "conditions" in state:
            try:
                return Conditions.from_record(state["conditions"])
            except ConfigError as error:
                raise CheckpointError(f"{self.path / STATE}: {error}") from None
        names = tuple(self.images(state)[1]) if class_conditional else ()
        return Conditions([Condition(LABEL, "label", names)] if names else [])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``name.safetensors``.

        Raises:
            CheckpointError: The file is missing or unreadable, or holds values that are not finite.
        """
        file = self.path / f"{name}.safetensors"
        if file.name not in self.manifest["files"]:
            raise CheckpointError(f"checkpoint {self.path} has no {file.name}")
        try:
            tensors: dict[str, Tensor] = load_tensors(file.read_bytes())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {file}: {error}") from error
        for key, value in tensors.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise CheckpointError(f"{file}: tensor {key!r} holds values that are not finite")
        return tensors


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Load weights, strictly.

    Raises:
        CheckpointError: Keys or shapes do not match; all of them are listed.
    """
    own = module.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        f"{key}: {tuple(tensors[key].shape)} in the file, {tuple(value.shape)} in the model"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if missing or extra or shapes:
        raise CheckpointError(
            f"the weights in {where} do not fit the model; missing: {_some(missing)}; "
            f"unexpected: {_some(extra)}; of another shape: {_some(shapes)}"
        )
    module.load_state_dict(dict(tensors))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def save(
    folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any]
) -> Checkpoint:
    """Write ``folder/step-...`` so that it is there whole or not at all.

    Args:
        folder: The ``checkpoints`` folder of a run.
        step: Optimiser steps done.
        tensors: File name without suffix -> tensors.
        state: JSON scalars; copied into the manifest's sha256 with the rest.

    Raises:
        CheckpointError: The disk is full or not writable; what was there before is untouched.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f"{TEMPORARY}{final.name}-{os.getpid()}"
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        contents = {f"{name}.safetensors": save_tensors(_plain(t)) for name, t in tensors.items()}
        contents[STATE] = _json_bytes(state)
        files = {}
        for name, data in contents.items():
            _write(temporary / name, data)
            files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest = {"format": FORMAT, "step": step, "files": files}
        _write(temporary / MANIFEST, _json_bytes(manifest))
        _sync_folder(temporary)
        _put(temporary, final)
        _sync_folder(folder)
    except OSError as error:
        remove(temporary)
        needed = sum(t.numel() * t.element_size() for ts in tensors.values() for t in ts.values())
        raise CheckpointError(
            f"cannot write checkpoint {final}: {error.strerror or error}; it needs about "
            f"{needed:,} bytes, {_free(folder):,} are free. Earlier checkpoints are intact"
        ) from error
    return Checkpoint(final, manifest)


def verify(path: Path) -> Checkpoint:
    """Hold a checkpoint folder against its manifest, byte by byte.

    Raises:
        CheckpointError: The first thing that is wrong.
    """
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint at {path}")
    if not _NAME.fullmatch(path.name):
        raise CheckpointError(f"{path} is not named step-NNNNNNNN, so it is no checkpoint")
    manifest = load_json(path / MANIFEST)
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict):
        raise CheckpointError(
            f"{path / MANIFEST} has format {manifest.get('format')!r}; this version reads {FORMAT}"
        )
    if not all(isinstance(entry, dict) for entry in files.values()):
        raise CheckpointError(f"{path / MANIFEST}: a file has no size and sha256 beside its name")
    present = {p.name for p in path.iterdir()} - {MANIFEST}
    if present != set(files):
        raise CheckpointError(
            f"{path}: missing {sorted(set(files) - present)}, not in the manifest "
            f"{sorted(present - set(files))}"
        )
    for name, expected in files.items():
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"cannot read {path / name}: {error.strerror}") from error
        digest, told = hashlib.sha256(data).hexdigest(), expected.get("sha256")
        if len(data) != expected.get("bytes") or digest != told:
            raise CheckpointError(
                f"{path / name} is damaged: {len(data)} bytes, sha256 {digest[:12]}...; "
                f"the manifest says {expected.get('bytes')} bytes, sha256 {str(told)[:12]}..."
            )
    return Checkpoint(path, manifest)


def candidates(folder: Path) -> list[Path]:
    """Folders that are named like checkpoints, newest step first; times on disk play no part.

    Of two of the same step, which a killed :func:`save` may leave, the one that replaces the other
    comes first.
    """
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()]
    return sorted(found, key=lambda p: (int(p.name.partition("-")[2]), len(p.name)), reverse=True)


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and a sentence for each newer one that does not."""
    skipped: list[str] = []
    for path in candidates(folder):
        try:
            return verify(path), skipped
        except CheckpointError as error:
            skipped.append(str(error))
    return None, skipped


def prune(folder: Path, keep: int, spared: str = "") -> None:
    """Delete all but the newest ``keep`` and one that is spared; call it only after the newest was
    verified."""
    for path in candidates(folder)[keep:]:
        if path.name != spared:
            discard(path)


def sweep(folder: Path) -> None:
    """Finish or delete what a killed process left half-done."""
    for second in folder.glob("step-0*"):
        final = second.with_name(f"step-{int(second.name.partition('-')[2]):08d}")
        if second != final and _NAME.fullmatch(second.name):
            _replace(second, final)
    for path in folder.glob(f"{TEMPORARY}*"):
        remove(path)


def discard(path: Path) -> None:
    """Delete a folder; killed in between, it leaves nothing that could be taken for the whole."""
    doomed = path.with_name(f"{TEMPORARY}{path.name}-old-{os.getpid()}")
    remove(doomed)
    path.rename(doomed)
    remove(doomed)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file whole: a reader sees the old one or the new one."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        _write(temporary, data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object, strictly: duplicate keys and NaN are refused.

    Raises:
        CheckpointError: It is missing or is no such object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=unique, parse_constant=refuse)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}; expected an object")
    return value


def _plain(tensors: Tensors) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # other systems cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(whole: Path, final: Path) -> None:
    """Give a checkpoint its name. Where one has it already, one of the two is there all the time:
    a leading zero more is a name of the same step."""
    if final.exists():
        second = final.with_name(final.name.replace("-", "-0"))
        whole.rename(second)
        _replace(second, final)
    else:
        whole.rename(final)


def _replace(second: Path, final: Path) -> None:
    old = final.with_name(f"{TEMPORARY}{final.name}-old-{os.getpid()}")
    if final.exists():
        remove(old)
        final.rename(old)
    second.rename(final)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
