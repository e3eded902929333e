"""What a run that is gone on with may change, and the sentence on what it may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ssmdiff import Config, ConfigError, did_you_mean, differences

FINGERPRINT = "data.fingerprint"
"""Stands among the keys for what the data set holds."""
RESUMED = ("config", "data_fingerprint", "ema_updates", "images_seen", "scaler", "step")
"""What a run that goes on reads of a checkpoint's state."""
FREE_ON_RESUME = (
    "train.steps",
    "train.batch_size",
    "train.micro_batch_size",
    "train.activation_checkpointing",
    "train.compile",
    "train.kernel",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.max_hours",
    "train.keep_checkpoints",
    "train.sample_every",
    "train.bound_images",
    "train.held_out_every",
    "train.held_out_images",
    "train.evaluate_every",
    "train.evaluate",
    "train.callbacks",
    "data.workers",
    "sample",
)
"""Keys and tables that a resumed run may change unasked: they alter no image of any number."""


def refuse_changes(
    before: Config,
    after: Config,
    prints: tuple[str, str],
    allowed: Iterable[str],
    where: object,
    made: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Check that a run goes on as it was begun.

    Args:
        before: The configuration of the checkpoint.
        after: That of now.
        prints: Fingerprints of the data set, then and now.
        allowed: Whole keys that may differ.
        where: The checkpoint, for messages.
        made: What is installed here in the place of what it was made with.

    Returns:
        What differs and may, old -> new; empty where nothing does.

    Raises:
        ConfigError: Another key differs, or there is no such key as one of those allowed.
    """
    changes = differences(before, after) | dict(made or {})
    if prints[0] != prints[1]:
        changes[FINGERPRINT] = (prints[0][:12], prints[1][:12])
    allowed = set(allowed)
    made_of = {f"provenance.{key}" for key in ("orders", *after.components())}
    refuse_unknown(allowed, {FINGERPRINT, *made_of, *changes, *after.keys()})
    told = {key: f"{key}: {_text(old)} -> {_text(new)}" for key, (old, new) in changes.items()}
    refused = [line for key, line in told.items() if not (key in allowed or _free(key))]
    if refused:
        raise ConfigError(
            f"{where} was made with another configuration:{_listed(refused)}\n"
            "Allow a change with --allow-config-change KEY, or start anew in another --out"
        )
    return f"the run goes on with other values:{_listed(told.values())}" if told else ""


def refuse_unknown(allowed: Iterable[str], known: Iterable[str]) -> None:
    """Check that keys that may change are keys.

    Raises:
        ConfigError: One is not; the near one is named, or those of a table.
    """
    known = sorted(known)
    for key in sorted(allowed):
        if key not in known:
            inside = [other for other in known if key and other.startswith(f"{key}.")]
            hint = f"name its keys: {', '.join(inside)}" if inside else did_you_mean(key, known)
            raise ConfigError(f"--allow-config-change {key!r}: there is no such key; {hint}")


def _free(key: str) -> bool:
    return any(f"{key}.".startswith(f"{free}.") for free in FREE_ON_RESUME)


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)


def _text(value: Any) -> str:
    return "not set" if value is None else repr(value)
