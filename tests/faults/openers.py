"""Everything that opens a file: whole files to start from, how they are damaged, what must hold."""

from __future__ import annotations

import io
import json
import random
import re
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import onnx
import ssmdiff
import torch
from fuzzing import FindingError, Mutate, Opener
from model_files import model
from opened_dicom import dicoms
from opened_files import files
from opened_images import images
from ssmdiff.registry.registry import Registry
from ssmdiff_cli.main import app
from ssmdiff_export.runtime import check_model_file
from ssmdiff_export.tensorrt.cache import EngineCache, EngineKey
from ssmdiff_export.tensorrt.device import Machine
from tiny_runs import SMALLEST, tiny_run
from typer.testing import CliRunner

# Runs and checkpoints --------------------------------------------------------------------------

STEP = "checkpoints/step-00000001"


def _run_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        tiny_run(Path(folder) / "run", backbone=SMALLEST, scan={"name": "raster"})
        return {
            str(p.relative_to(Path(folder) / "run")): p.read_bytes()
            for p in (Path(folder) / "run").rglob("*")
            if p.is_file()
        }


def _open_run(folder: Path) -> ssmdiff.Run:
    return ssmdiff.load_run(folder)


def _run_is_its_files(folder: Path, run: ssmdiff.Run) -> None:
    assert run.checkpoint.path == folder / STEP
    for name, expected in json.loads((folder / STEP / "manifest.json").read_text())[
        "files"
    ].items():
        assert (folder / STEP / name).stat().st_size == expected["bytes"]
    assert all(torch.isfinite(p).all() for p in run.model.parameters())
    state = json.loads((folder / STEP / "state.json").read_bytes())
    assert run.channels == state["channels"] >= 1
    assert run.classes == state["class_names"]
    written = tomllib.loads((folder / "config.toml").read_text("utf-8-sig"))
    assert set(written) - {"provenance"} <= set(run.config.to_dict())
    repr(run)
    repr(run.folder)


def _runs() -> dict[str, Opener]:
    files = _run_files()
    manifest = f"{STEP}/manifest.json"

    def open_believed(folder: Path) -> ssmdiff.Run:
        """With a manifest made after the damage: everything behind the hashes has to see it."""
        inside = {p.name: p.read_bytes() for p in (folder / STEP).iterdir()}
        inside.pop("manifest.json")
        (folder / manifest).write_bytes(mutations.rehashed(files[manifest], inside))
        return _open_run(folder)

    def one(name: str, mutate: Mutate, how: Callable[[Path], Any]) -> Opener:
        return Opener(files, {name: mutate}, how, _run_is_its_files)

    return {
        "checkpoint manifest.json": one(manifest, mutations.json_text, _open_run),
        "checkpoint state.json": one(f"{STEP}/state.json", mutations.json_text, _open_run),
        "checkpoint ema.safetensors": one(
            f"{STEP}/ema.safetensors", mutations.some_bytes, _open_run
        ),
        "believed state.json": one(f"{STEP}/state.json", mutations.json_text, open_believed),
        "believed ema.safetensors": one(
            f"{STEP}/ema.safetensors", mutations.safetensors, open_believed
        ),
        "config.toml of a run": one("config.toml", mutations.toml, _open_run),
    }


# Configurations --------------------------------------------------------------------------------


def _config() -> dict[str, Opener]:
    names = ("tiny", "small", "paper-128", "defaults")
    folder = Path(ssmdiff.__file__).parent / "runs" / "presets"

    def show(place: Path) -> Any:
        return _call("config", "show", "--config", str(place / "c.toml"), "--json")

    def is_what_was_given(place: Path, shown: str) -> None:
        resolved = json.loads(shown)
        given = tomllib.loads((place / "c.toml").read_text("utf-8-sig"))
        for section in set(given) & {"train", "sample"}:
            for key, value in given[section].items():
                if isinstance(value, int | float | str) and not key.endswith("name"):
                    got = resolved[section][key]
                    same = got == value or (isinstance(got, dict) and got.get("name") == value)
                    # A float has 53 bits: 99999999999999999999 arrives as 1e20, which it is near.
                    same = same or (isinstance(got, float) and got == float(value))
                    assert same, (section, key, value, got)

    return {
        f"preset {name} by --config": Opener(
            {"c.toml": (folder / f"{name}.toml").read_bytes()},
            {"c.toml": mutations.toml},
            show,
            is_what_was_given,
        )
        for name in names
    }


def _call(*arguments: str) -> str:
    """The command; its sentence is raised as the error that it was, and a traceback as it is."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        if "Traceback" in result.output or not result.output.strip():
            raise FindingError(
                f"exit code {result.exit_code} without a sentence: {result.output!r}"
            )
        raise ssmdiff.SsmdiffError(result.output)
    return str(result.stdout)


def _draw(folder: Path, n: int) -> str:
    out = ["--format", "npy", "--out", str(folder / "out")]
    return _call("sample", str(folder / "m.onnx"), "--n", str(n), "--steps", "1", *out)


# Model files and engines -----------------------------------------------------------------------


def _onnx() -> dict[str, Opener]:
    whole = model()

    def card_of(rng: random.Random, data: bytes) -> bytes:
        proto = onnx.load_model_from_string(data)
        (entry,) = proto.metadata_props
        text = mutations.json_text(rng, entry.value.encode())
        entry.value = text.decode("utf-8", "replace")
        return bytes(proto.SerializeToString())

    def is_what_it_says(folder: Path, report: Any) -> None:
        repr(report.card)
        str(report.card)
        try:
            proto = onnx.load_model_from_string((folder / "m.onnx").read_bytes())
        except Exception:
            return  # read by our reader to the field that it needs; the runtime refuses the rest
        domains = {node.domain for node in proto.graph.node}
        assert domains <= {"", "ai.onnx", "ssmdiff"}, domains
        cards = [entry.value for entry in proto.metadata_props if entry.key == "ssmdiff"]
        assert len(cards) == 1
        assert json.loads(cards[0])["channels"] == report.card.channels
        assert not any(t.external_data for t in proto.graph.initializer)

    def opener(mutate: Mutate) -> Opener:
        return Opener(
            {"m.onnx": whole.SerializeToString()},
            {"m.onnx": mutate},
            lambda folder: check_model_file(folder / "m.onnx"),
            is_what_it_says,
        )

    return {"model card": opener(card_of), "onnx file": opener(mutations.some_bytes)}


def _sampled() -> dict[str, Opener]:
    """A file that was damaged is given to the command, which must refuse it or draw from it."""
    whole = model()
    whole.producer_name = "pytorch"

    def draw(folder: Path) -> str:
        return _draw(folder, 1)

    def is_an_image(folder: Path, said: str) -> None:
        assert np.isfinite(np.load(folder / "out" / "000000.npy")).all()

    return {
        "onnx file sampled": Opener(
            {"m.onnx": whole.SerializeToString()},
            {"m.onnx": mutations.some_bytes},
            draw,
            is_an_image,
        )
    }


def _archive() -> dict[str, Opener]:
    """Archives of torch.export: an unknown one is never opened, whatever is in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/extra/ssmdiff", "{}")
        archive.writestr("m/data/weights/model.pt", b"\x80\x02}q\x00.")
        archive.writestr("m/archive_format", "pt2")

    def refused(folder: Path, said: Any) -> None:
        raise FindingError("an archive that nobody noted was opened")

    return {
        "pt2 archive": Opener(
            {"m.pt2": file.getvalue()},
            {"m.pt2": mutations.some_bytes},
            lambda folder: _call("sample", str(folder / "m.pt2"), "--out", str(folder / "out")),
            refused,
        )
    }


def _engines() -> dict[str, Opener]:
    machine = Machine("11.1.0.9", "NVIDIA H100", "9.0", "580.65")
    key = EngineKey("0" * 64, "fp16", (1, 8, 64), 1 << 32, machine)
    with tempfile.TemporaryDirectory() as folder:
        cache = EngineCache(Path(folder) / "cache")
        plan = cache.put(key, b"native code" * 100, {"steps": 50}).plan
        manifest = (cache.folder / key.digest() / "manifest.json").read_bytes()
    inside = f"cache/{key.digest()}"

    def opened(folder: Path) -> Any:
        (folder / "cache").chmod(0o700)
        cache = EngineCache(folder / "cache")
        cache.knows(folder / "m.engine")
        found = cache.open(folder / "m.engine", machine)
        assert cache.get(key) is None or cache.get(key).plan == plan
        return found

    def is_the_one_that_was_built(folder: Path, engine: Any) -> None:
        assert engine.plan == plan == (folder / "m.engine").read_bytes()
        assert engine.machine == machine
        assert isinstance(engine.card, dict)

    files = {"m.engine": plan, f"{inside}/engine.plan": plan, f"{inside}/manifest.json": manifest}
    return {
        "engine manifest": Opener(
            files,
            {f"{inside}/manifest.json": mutations.json_text},
            opened,
            is_the_one_that_was_built,
        ),
        "engine file": Opener(
            files, {"m.engine": mutations.some_bytes}, opened, is_the_one_that_was_built
        ),
    }


# Sample folders --------------------------------------------------------------------------------


def _samples() -> dict[str, Opener]:
    proto = model()
    proto.producer_name = "pytorch"
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "m.onnx").write_bytes(proto.SerializeToString())
        _draw(Path(place), 2)
        files = {
            f"out/{p.name}": p.read_bytes() for p in Path(place, "out").iterdir() if p.is_file()
        }
        files["m.onnx"] = proto.SerializeToString()

    def more(folder: Path) -> str:
        return _draw(folder, 3)

    def is_one_set(folder: Path, said: str) -> None:
        for i in range(2):  # what was drawn before is still what it was
            assert (folder / f"out/00000{i}.npy").read_bytes() == files[f"out/00000{i}.npy"]
        assert np.isfinite(np.load(folder / "out/000002.npy")).all()
        json.loads((folder / "out/samples.json").read_bytes())

    return {
        "samples.json": Opener(files, {"out/samples.json": mutations.json_text}, more, is_one_set)
    }


# Plugins ---------------------------------------------------------------------------------------


def _plugins() -> dict[str, Opener]:
    info = "ssmdiff_fuzzed-1.0.dist-info"
    code = (
        b"import ssmdiff\n@ssmdiff.hookimpl\ndef ssmdiff_scans():\n"
        b"    yield ssmdiff.Component('fuzzed', 'ssmdiff_fuzzed_scan:Scan', 'a scan')\n"
    )
    files = {
        "ssmdiff_fuzzed.py": code,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: ssmdiff-fuzzed\nVersion: 1.0\n",
        f"{info}/entry_points.txt": b"[ssmdiff]\nfuzzed = ssmdiff_fuzzed\n",
        f"{info}/RECORD": b"ssmdiff_fuzzed.py,,\n",
    }
    ours = {e.component.name for e in Registry(allowed=[]).all()}

    def load(folder: Path) -> Registry:
        sys.path.insert(0, str(folder))
        try:
            return Registry()
        finally:
            sys.path.remove(str(folder))
            sys.modules.pop("ssmdiff_fuzzed", None)

    def the_others_work(folder: Path, found: Registry) -> None:
        assert ours <= {e.component.name for e in found.all()} | {"fuzzed"}
        for kind in ("scan", "block"):
            for name in found.names(kind):
                assert re.fullmatch(r"[a-z0-9_-]+", name), name
        found.conflicts()
        for plugin in found.plugins:
            assert plugin.error or plugin.components or plugin.source

    def is_never_refused(folder: Path) -> Registry:
        """One bad distribution must not take the command line down: nothing may be raised."""
        try:
            return load(folder)
        except ssmdiff.SsmdiffError as error:
            raise FindingError(f"a damaged distribution stops every command: {error}") from error

    def one(name: str, mutate: Mutate) -> Opener:
        return Opener(files, {name: mutate}, is_never_refused, the_others_work)

    return {
        "plugin METADATA": one(f"{info}/METADATA", mutations.text_lines),
        "plugin entry_points.txt": one(f"{info}/entry_points.txt", mutations.text_lines),
        "plugin RECORD": one(f"{info}/RECORD", mutations.text_lines),
        "plugin code": one("ssmdiff_fuzzed.py", mutations.text_lines),
    }


# All of them -----------------------------------------------------------------------------------

ROOMS = (
    images, files, _runs, _config, _onnx, _sampled, _archive, _engines, _samples, _plugins, dicoms,
)  # fmt: skip
NAMES = (
    "image grey.png", "image deep.png", "image palette.png", "image alpha.png", "image colour.jpg",
    "image deflate.tif", "image plain.tif", "image array.npy", "read volume.nii",
    "read times.nii.gz", "read stack.tif", "read arrays.npz", "checkpoint manifest.json",
    "checkpoint state.json", "checkpoint ema.safetensors", "believed state.json",
    "believed ema.safetensors", "config.toml of a run", "preset tiny by --config",
    "preset small by --config", "preset paper-128 by --config", "preset defaults by --config",
    "model card", "onnx file", "onnx file sampled", "pt2 archive", "engine manifest", "engine file",
    "samples.json", "plugin METADATA", "plugin entry_points.txt", "plugin RECORD", "plugin code",
    "dicom plain", "dicom frames", "dicom deflated", "dicom rle", "dicom jpeg-ls",
    "dicom jpeg 2000",
)  # fmt: skip


def openers() -> dict[str, Opener]:
    """Every opener by name; whole files are made once, and each is proven to open."""
    return {name: opener for room in ROOMS for name, opener in room().items()}
