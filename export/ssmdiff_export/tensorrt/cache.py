"""Engines on disk: built here, known by hash, and nothing else is ever deserialised.

An engine is native code. This cache is a folder of the user's own (mode 0700), one folder for each
engine in it, written under another name and renamed when whole:

    <key>/engine.plan
    <key>/manifest.json     sha256 and size of the plan, what it is from and for; written last

An engine file anywhere is trusted if its sha256 stands in a manifest of this cache, because then
this user built it on this machine, or brought its folder here by hand. TensorRT's own checks
detect damage, not intent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssmdiff import CheckpointError, ExportError, load_json, write_atomically

from ssmdiff_export.tensorrt.binding import PRODUCTS, TENSORRT, Product
from ssmdiff_export.tensorrt.device import Machine

FORMAT = 1
PLAN = "engine.plan"
MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
_NAME = re.compile(r"[0-9a-f]{64}")
Batch = tuple[int, int, int]


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on; another value is another engine."""

    model_sha256: str
    precision: str
    batch: Batch
    workspace_bytes: int
    machine: Machine

    def digest(self) -> str:
        """The name of the engine's folder."""
        text = json.dumps(asdict(self) | {"format": FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Engine:
    """An engine whose manifest verified, in memory: what was hashed is what will run."""

    plan: bytes
    manifest: dict[str, Any]

    @property
    def machine(self) -> Machine:
        return Machine(**self.manifest["key"]["machine"])

    @property
    def product(self) -> Product:
        """Whose engine it is."""
        return PRODUCTS[self.machine.product]

    @property
    def batch(self) -> Batch:
        """Fewest, usual and most images of a call."""
        fewest, usual, most = self.manifest["key"]["batch"]
        return int(fewest), int(usual), int(most)

    @property
    def card(self) -> dict[str, Any]:
        """The model card of the ONNX file that it was built from."""
        return dict(self.manifest["card"])

    def refuse_elsewhere(self, path: Path, here: Machine) -> None:
        """Check that this machine can run it.

        Raises:
            ExportError: It is for another TensorRT, GPU or driver, or for other capabilities.
        """
        different = self.machine.differences(here)
        if different:
            raise ExportError(
                f"{path} was built for another machine: {'; '.join(different)}; "
                f"{_rebuild(self.product, here)}"
            )


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/ssmdiff/tensorrt``, or the same under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ssmdiff" / "tensorrt"


class EngineCache:
    """The cache of a user.

    Args:
        folder: Created if missing; :func:`default_folder` by default.

    Raises:
        ExportError: The folder is not the user's alone, or cannot be made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = private_folder(folder or default_folder())
        for left in self.folder.glob(f"{TEMPORARY}*"):
            if not _alive(left.name):
                shutil.rmtree(left, ignore_errors=True)

    def get(self, key: EngineKey) -> Engine | None:
        """The engine of a key; None if there is none or it is damaged, and then it is removed."""
        path = self.folder / key.digest()
        if not path.is_dir():
            return None
        try:
            return _read(path)
        except ExportError:
            self._discard(path)
            return None

    def put(self, key: EngineKey, plan: bytes, card: Mapping[str, Any]) -> Engine:
        """Keep an engine: there whole or not at all, whenever the process is killed.

        Raises:
            ExportError: The disk is full or not writable.
        """
        manifest = {
            "format": FORMAT,
            "sha256": hashlib.sha256(plan).hexdigest(),
            "bytes": len(plan),
            "key": asdict(key),
            "card": dict(card),
        }
        final = self.folder / key.digest()
        temporary = self.folder / f"{TEMPORARY}{os.getpid()}-{final.name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(mode=0o700)
            write_atomically(temporary / PLAN, plan)
            write_atomically(temporary / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
            self._discard(final)
            temporary.rename(final)
        except (OSError, CheckpointError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise ExportError(f"cannot keep the engine in {self.folder}: {error}") from error
        return Engine(plan, manifest)

    def remove(self, key: EngineKey) -> None:
        """Forget an engine, as one that proved wrong."""
        self._discard(self.folder / key.digest())

    def _discard(self, path: Path) -> None:
        """Delete an engine at once: renamed first, since a kill may come between two files."""
        if path.exists():
            doomed = self.folder / f"{TEMPORARY}{os.getpid()}-old-{path.name}"
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def engines(self) -> Iterator[dict[str, Any]]:
        """The manifests of all engines, in any order."""
        for path in sorted(self.folder.iterdir()):
            if _NAME.fullmatch(path.name):
                try:
                    yield _manifest(path)
                except CheckpointError:
                    continue  # removed meanwhile, or damaged: it vouches for nothing

    def open(self, path: Path, here: Machine) -> Engine:
        """An engine file, read once, if this cache knows it and this machine can run it.

        Args:
            path: Anywhere.
            here: This machine.

        Raises:
            ExportError: It cannot be read, was not built here, or was built for another TensorRT,
                GPU or driver. Nothing of it was deserialised.
        """
        engine = self.find(path, PRODUCTS[here.product])
        engine.refuse_elsewhere(path, here)
        return engine

    def find(self, path: Path, product: Product = TENSORRT) -> Engine:
        """An engine file, read once, if this cache knows it; for whatever machine.

        Args:
            path: Anywhere.
            product: What a message says to build it with.

        Raises:
            ExportError: It cannot be read, or was not built here.
        """
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror or error}") from error
        digest = hashlib.sha256(plan).hexdigest()
        for manifest in self.engines():
            if manifest.get("sha256") == digest and manifest.get("format") == FORMAT:
                return Engine(plan, manifest)
        raise ExportError(
            f"{path} (sha256 {digest[:12]}...) was not built by this user on this machine, or was "
            f"changed since: {self.folder} does not know it. An engine is native code and is not "
            f"run on trust; {_rebuild(product)}"
        )

    def knows(self, path: Path) -> Product | None:
        """Whose engine a file is, if it is one of these, wherever it lies; it is read alone."""
        try:
            size = path.stat().st_size
            known = {m.get("sha256"): m for m in self.engines() if m.get("bytes") == size}
            found = known.get(hashlib.sha256(path.read_bytes()).hexdigest()) if known else None
        except OSError:
            return None
        return None if found is None else Engine(b"", found).product

    def timing_cache(self, machine: Machine) -> Path:
        """Where TensorRT's timings of this machine are kept; the file may not exist."""
        text = json.dumps(asdict(machine), sort_keys=True)
        return self.folder / f"timing-{hashlib.sha256(text.encode()).hexdigest()[:16]}.bin"


def private_folder(path: Path) -> Path:
    """The folder, made if missing, after it proved to be the user's alone.

    Raises:
        ExportError: Others own it or may write to it, or it is no folder.
    """
    if os.name != "posix":
        raise ExportError("the engine cache needs a POSIX system, for owners and modes of files")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve(strict=True)
        status = path.stat()
    except OSError as error:
        raise ExportError(f"cannot make {path}: {error.strerror or error}") from error
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise ExportError(f"{path} belongs to user {status.st_uid}; expected {os.geteuid()}, you")
    if mode & 0o077:
        raise ExportError(
            f"{path} has mode {mode:04o}, so that others reach it; expected 0700. Engines are "
            f"native code: look who wrote there, then chmod 700 {path}"
        )
    for parent in path.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ExportError(
                f"{parent} is writable by everyone (mode {stat.S_IMODE(mode):04o}), so that others "
                f"can replace {path}; choose another place with XDG_CACHE_HOME"
            )
    return path


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of an engine's folder.

    Raises:
        CheckpointError: It is missing or damaged, or it names no machine or holds no card.
    """
    manifest = load_json(path / MANIFEST)
    key = manifest.get("key")
    machine = key.get("machine") if isinstance(key, dict) else None
    try:
        named = asdict(Machine(**machine))  # type: ignore[arg-type]  # of any form, in a file
        if not all(isinstance(value, str) for value in named.values()):
            raise TypeError(f"got {named}, expected texts")
        PRODUCTS[named["product"]]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path / MANIFEST} names no machine: {error}") from error
    if not isinstance(manifest.get("card"), dict) or not isinstance(manifest.get("sha256"), str):
        raise CheckpointError(f"{path / MANIFEST} holds no model card, or no sha256")
    return manifest


def _read(path: Path) -> Engine:
    try:
        manifest = _manifest(path)
        plan = (path / PLAN).read_bytes()
    except (OSError, CheckpointError) as error:
        raise ExportError(f"{path} is damaged: {error}") from error
    if manifest.get("format") != FORMAT or manifest.get("bytes") != len(plan):
        raise ExportError(f"{path} is damaged: {len(plan)} bytes of {manifest.get('bytes')}")
    if hashlib.sha256(plan).hexdigest() != manifest.get("sha256"):
        raise ExportError(f"{path} is damaged: the plan is not the one of the manifest")
    return Engine(plan, manifest)


def _rebuild(product: Product, here: Machine | None = None) -> str:
    """How to come by an engine that runs here."""
    if here is not None and product.capabilities and here.capability not in product.capabilities:
        return f"{product.title} serves no card of capability {here.capability}"
    card = f" --set capability={here.capability}" if here and product.capabilities else ""
    out = f"FILE{product.suffixes[0]}"
    return f"build it here: ssmdiff export RUN --to {product.target}{card} --out {out}"


def _alive(name: str) -> bool:
    """Whether the process that writes this temporary folder still runs."""
    try:
        os.kill(int(name.removeprefix(TEMPORARY).partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True
