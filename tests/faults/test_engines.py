"""Engines that must not run: foreign, stale, truncated, half-built, or in a folder others reach."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ssmdiff.errors import ExportError
from ssmdiff_export.tensorrt.cache import EngineCache, EngineKey
from ssmdiff_export.tensorrt.device import Machine

HERE = Machine("11.1.0.9", "NVIDIA H100", "9.0", "580.65")


def key(machine: Machine = HERE, precision: str = "fp16") -> EngineKey:
    return EngineKey("0" * 64, precision, (1, 8, 64), 1 << 32, machine)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def file(cache, tmp_path):
    """An engine that this cache knows, as the exporter writes it."""
    path = tmp_path / "model.engine"
    path.write_bytes(cache.put(key(), b"native code" * 100, {"steps": 50}).plan)
    return path


def test_an_engine_that_was_built_here_opens(cache, file):
    engine = EngineCache(cache.folder).open(file, HERE)
    assert engine.plan == file.read_bytes()
    assert engine.card == {"steps": 50}
    assert cache.get(key()) == engine


# X10: another TensorRT, GPU or driver; truncated engines


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Machine("10.13.3.9", "NVIDIA H100", "9.0", "580.65"), "tensorrt 11.1.0.9 there, 10.13"),
        (Machine("11.1.0.9", "NVIDIA A100", "8.0", "580.65"), "gpu NVIDIA H100 there, NVIDIA A100"),
        (Machine("11.1.0.9", "NVIDIA H100", "9.0", "590.10"), "driver 580.65 there, 590.10 here"),
    ],
)
def test_an_engine_of_another_machine_is_refused_and_built_anew(cache, file, other, told):
    with pytest.raises(ExportError, match=told) as refused:
        cache.open(file, other)
    assert "ssmdiff export RUN --to tensorrt" in str(refused.value)
    assert cache.get(key(other)) is None, "the exporter would build it"


CARDS = Machine("1.7.1.116", "any", "8.6,8.9,12.0", "any", "tensorrt-rtx")
CARD = Machine("1.7.1.116", "NVIDIA GeForce RTX 4090", "8.9", "580.65", "tensorrt-rtx")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"capability": "12.1"}, "capability 8.6,8.9,12.0 there, 12.1 here; build it here: ssmdiff "
         "export RUN --to tensorrt-rtx --set capability=12.1 --out FILE.rtx"),
        ({"capability": "9.0"}, "capability 8.6,8.9,12.0 there, 9.0 here; TensorRT for RTX serves "
         "no card of capability 9.0"),
        ({"capability": "8"}, "8.6,8.9,12.0 there, 8 here"),
        ({"tensorrt": "1.8.0.1"}, "tensorrt 1.7.1.116 there, 1.8.0.1 here; build it here"),
        ({"product": "tensorrt"}, "product tensorrt-rtx there, tensorrt here"),
    ],
)  # fmt: skip
def test_an_engine_for_other_cards_is_refused_in_a_sentence(cache, tmp_path, changes, told):
    path = tmp_path / "model.rtx"
    path.write_bytes(cache.put(key(CARDS), b"native code", {}).plan)
    for driver, card in (("1", "8.6"), ("580.65", "8.9"), ("2", "12.0")):
        here = dataclasses.replace(CARD, capability=card, driver=driver, gpu=f"card {card}")
        assert cache.open(path, here).plan == b"native code"
    with pytest.raises(ExportError) as refused:
        cache.open(path, dataclasses.replace(CARD, **changes))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert cache.knows(path).target == "tensorrt-rtx"


@pytest.mark.parametrize(
    "changed",
    [
        EngineKey("1" * 64, "fp16", (1, 8, 64), 1 << 32, HERE),
        EngineKey("0" * 64, "fp32", (1, 8, 64), 1 << 32, HERE),
        EngineKey("0" * 64, "fp16", (1, 8, 65), 1 << 32, HERE),
        EngineKey("0" * 64, "fp16", (1, 8, 64), 1 << 33, HERE),
        EngineKey("0" * 64, "fp16", (1, 8, 64), 1 << 32, CARDS),
    ],
)
def test_everything_that_an_engine_depends_on_is_in_its_key(cache, file, changed):
    assert cache.get(key()) is not None
    assert cache.get(changed) is None


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + b"X"])
def test_a_damaged_engine_in_the_cache_is_built_anew(cache, damage):
    cache.put(key(), b"native code" * 100, {})
    plan = cache.folder / key().digest() / "engine.plan"
    plan.write_bytes(damage(plan.read_bytes()))
    assert cache.get(key()) is None
    assert not plan.parent.exists()


def test_a_truncated_file_is_not_the_one_that_was_built(cache, file):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ExportError, match="was changed since"):
        cache.open(file, HERE)


def test_an_engine_that_tensorrt_refuses_ends_with_what_it_logged(cache, monkeypatch, tmp_path):
    """Its manifest is right and TensorRT gives None, as after an update that kept its version."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "export" / "tensorrt")
    from trt_stub import STUB, HostDevice, forget_tensorrt

    forget_tensorrt()
    monkeypatch.syspath_prepend(STUB)
    from ssmdiff_export.tensorrt.runtime import EngineDenoiser

    try:
        engine = cache.put(key(), b"no plan at all", {})
        with pytest.raises(ExportError, match=r"build it anew; TensorRT says:\nerror: IRuntime::"):
            EngineDenoiser(engine, HostDevice())
    finally:
        forget_tensorrt()


# X11: foreign engines


def test_a_foreign_engine_is_refused_before_it_is_deserialised(cache, tmp_path, monkeypatch):
    foreign = tmp_path / "downloaded.engine"
    foreign.write_bytes(b"native code of somebody else")
    with pytest.raises(ExportError, match="native code and is not run on trust"):
        cache.open(foreign, HERE)


def test_a_manifest_beside_a_foreign_engine_vouches_for_nothing(cache, file, tmp_path):
    elsewhere = tmp_path / "gift"
    elsewhere.mkdir()
    plan = b"native code of somebody else"
    (elsewhere / "engine.plan").write_bytes(plan)
    manifest = json.loads((cache.folder / key().digest() / "manifest.json").read_text())
    manifest["sha256"] = hashlib.sha256(plan).hexdigest()
    (elsewhere / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="does not know it"):
        cache.open(elsewhere / "engine.plan", HERE)


def test_an_engine_of_a_machine_that_is_no_text_is_not_known(cache, file):
    manifest = cache.folder / key().digest() / "manifest.json"
    values = json.loads(manifest.read_text())
    values["key"]["machine"]["capability"] = ["9.0"]
    manifest.write_text(json.dumps(values))
    with pytest.raises(ExportError, match="does not know it"):
        cache.open(file, HERE)


def test_a_missing_file_is_told(cache, tmp_path):
    with pytest.raises(ExportError, match="No such file"):
        cache.open(tmp_path / "nothing.engine", HERE)


# X13: killed while an engine is written


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_kill_at_any_moment_leaves_the_cache_consistent(tmp_path):
    folder = tmp_path / "cache"
    for delay_s in np.linspace(0.001, 0.04, 20):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for i in itertools.count():
                    EngineCache(folder).put(key(), bytes([i % 256]) * 500_000, {"i": i})
                    if i == 0:
                        os.write(writer, b"x")
            finally:
                os._exit(1)
        os.read(reader, 1)  # the first engine is there
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        for path in folder.glob("[0-9a-f]*"):
            manifest = json.loads((path / "manifest.json").read_bytes())
            plan = (path / "engine.plan").read_bytes()
            assert hashlib.sha256(plan).hexdigest() == manifest["sha256"]
        cache = EngineCache(folder)
        assert not list(folder.glob(".tmp-*")), "what a dead process left is swept"
        engine = cache.get(key())
        assert engine is None or len(engine.plan) == 500_000
        cache.put(key(), b"anew", {})
        assert EngineCache(folder).get(key()).plan == b"anew"


def test_a_full_disk_leaves_the_earlier_engine(cache, monkeypatch):
    cache.put(key(), b"earlier", {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssmdiff.runs.checkpoint._write", full)
    with pytest.raises(ExportError, match="No space left on device"):
        cache.put(key(), b"later", {})
    monkeypatch.undo()
    assert cache.get(key()).plan == b"earlier"
    assert [p.name for p in cache.folder.iterdir()] == [key().digest()]


# X14: a cache that others can write to


def test_a_new_cache_is_the_users_alone(cache):
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755, 0o701])
def test_a_cache_that_others_reach_is_refused(tmp_path, mode):
    folder = tmp_path / "cache"
    EngineCache(folder).put(key(), b"native code", {})
    folder.chmod(mode)
    with pytest.raises(ExportError, match=f"has mode {mode:04o}.*chmod 700"):
        EngineCache(folder)


def test_a_cache_of_another_user_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    EngineCache(folder)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ExportError, match="belongs to user"):
        EngineCache(folder)


def test_a_cache_below_a_folder_of_everyone_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ExportError, match="writable by everyone"):
        EngineCache(tmp_path / "open" / "cache")


def test_the_cache_follows_the_users_choice_of_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "place"))
    assert EngineCache().folder == tmp_path / "place" / "ssmdiff" / "tensorrt"
