"""Damaged files of every sort, opened: images, checkpoints, models, configurations, plugins.

Bounded here; ``python tests/faults/fuzzing.py --seconds 3600`` goes on for an hour. What each
opener holds stands in ``openers.py``, what counts as a finding in ``fuzzing.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fuzzing import FindingError, Opener, once
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openers import NAMES, openers

SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def whole() -> dict[str, Opener]:
    return openers()


def opened(name: str, opener: Opener, seed: int) -> str:
    with tempfile.TemporaryDirectory() as place:
        return once(name, opener, seed, Path(place))


@pytest.mark.slow
def test_every_opener_opens_its_whole_files(whole: dict[str, Opener]) -> None:
    """Without damage, or the fuzz would prove nothing. An archive of a stranger is never opened."""
    assert tuple(whole) == NAMES
    for name, opener in whole.items():
        undamaged = {file: lambda rng, data: data for file in opener.mutate}
        outcome = opened(name, dataclasses.replace(opener, mutate=undamaged), 0)
        assert outcome == ("refused" if name == "pt2 archive" else "accepted"), name


# Chosen by hypothesis; nothing is shrunk, since a seed is no larger or smaller than another.
QUICK = settings(
    max_examples=2,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(seed=SEEDS)
def test_damage_is_a_sentence_or_does_no_harm(name: str, whole, seed: int) -> None:
    opened(name, whole[name], seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("plugin")])
@settings(QUICK, max_examples=60)
@given(seed=SEEDS)
def test_more_damage_is_a_sentence_or_does_no_harm(name: str, whole, seed: int) -> None:
    opened(name, whole[name], seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("plugin")])
@settings(QUICK, max_examples=15)
@given(seed=SEEDS)
def test_more_damage_to_a_plugin_is_a_sentence_or_does_no_harm(name: str, whole, seed: int) -> None:
    """An interpreter is started for each."""
    opened(name, whole[name], seed)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda folder: 1 / 0, "ZeroDivisionError"),
        (lambda folder: bytearray(200_000_000), "bytes of memory"),
        (lambda folder: None, "AssertionError"),
    ],
)
def test_a_crash_memory_and_a_lie_are_found(whole, wrong, said: str) -> None:
    """The fuzz itself can fail."""
    opener = dataclasses.replace(whole["image grey.png"], open=wrong)
    if "memory" in said:
        opener = dataclasses.replace(opener, accepted=lambda folder, found: None)
    elif said == "AssertionError":
        opener = dataclasses.replace(opener, accepted=lambda folder, found: pytest.fail("a lie"))
        said = "a lie"
    with pytest.raises(FindingError, match=said):
        opened("image grey.png", opener, 0)


def test_a_hang_is_found_whatever_catches_errors(whole, monkeypatch) -> None:
    """It counts the processor's time, of which a busy machine gives little; and waiting."""

    def busy(folder: Path) -> None:
        while True:
            with contextlib.suppress(Exception):
                [].pop()

    def waiting(folder: Path) -> None:
        signal.pause()

    before = signal.getitimer(signal.ITIMER_REAL)[0]
    for open_, seconds, clock, said in (
        (busy, 0.1, 600, "0.1 s of the processor"),
        (waiting, 20, 0.1, "0.1 s have"),
    ):
        monkeypatch.setattr("fuzzing.SECONDS", seconds)
        monkeypatch.setattr("fuzzing.WAITING", clock)
        with pytest.raises(FindingError, match=f"it hangs: {said}"):
            opened("image grey.png", dataclasses.replace(whole["image grey.png"], open=open_), 1)
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= before  # pytest's own goes on


FOUND = [
    (
        "pt2 archive",
        lambda data: data.replace(b"PK\1\2\x14\3\x14\0", b"PK\1\2\x14\3\x9c\0"),
    ),  # zip 15.6
    ("samples.json", lambda data: b'{"scheduler": 1.5}'),
    ("engine manifest", lambda data: json.dumps(json.loads(data) | {"sha256": {}}).encode()),
    ("engine manifest", lambda data: json.dumps(json.loads(data) | {"key": {}}).encode()),
    ("checkpoint manifest.json", lambda data: data.replace(b'"sha256"', b'"sha1"')),
    ("believed state.json", lambda data: b'{"class_names": []}'),
    ("believed state.json", lambda data: b'{"channels": 2147483648, "class_names": []}'),
    ("config.toml of a run", lambda data: b"[" + b".".join([b"a"] * 2000) + b"]"),
    ("preset tiny by --config", lambda data: b"seed = " + b"[" * 5000),
    ("preset tiny by --config", lambda data: b"seed = " + b"1" * 5000),
    ("plugin entry_points.txt", lambda data: b"\xff" + data),
    ("plugin entry_points.txt", lambda data: data + b"x\n"),
    ("plugin METADATA", lambda data: b"\xff" + data),
    ("onnx file sampled", lambda data: data.replace(b"\x05batch", b"\x05b\xabtch")),
]


@pytest.mark.parametrize(("name", "damage"), FOUND)
def test_what_was_found_stays_mended(name: str, damage, whole: dict[str, Opener]) -> None:
    """Tracebacks of the first hours, by their inputs."""
    opener = whole[name]
    changed = {file: lambda rng, data: damage(data) for file in opener.mutate}
    assert all(damage(opener.files[file]) != opener.files[file] for file in changed)
    assert opened(name, dataclasses.replace(opener, mutate=changed), 0) in ("accepted", "refused")


@pytest.mark.night
@pytest.mark.timeout(0)
def test_an_hour_of_damage() -> None:
    """In a process whose memory the kernel bounds."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fuzzing.py")), "--seconds", "3600"],
        check=False,
    )
    assert done.returncode == 0
