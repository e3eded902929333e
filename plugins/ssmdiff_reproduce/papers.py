"""What papers print: counts that a table is computed from, and the figures beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Doctor:
    """One reader of a visual Turing test, as printed.

    Args:
        table: Its number, in Roman.
        real: Real images (judged real, judged synthetic).
        synthetic: Synthetic images, likewise.
        per_kind: What the paper heads "Precision": of each kind the share that was recognised.
        per_judgement: What it heads "Recall": of each judgement the share that was right.
        fisher: Fisher's exact p, two-sided, of table V.
    """

    table: str
    real: tuple[int, int]
    synthetic: tuple[int, int]
    per_kind: tuple[float, float]
    per_judgement: tuple[float, float]
    fisher: float


VM_DDPM = {
    "doctor 1": Doctor("III", (86, 14), (81, 17), (0.860, 0.173), (0.515, 0.548), 0.56136),
    "doctor 2": Doctor("IV", (44, 28), (58, 21), (0.611, 0.266), (0.431, 0.429), 0.11982),
}
"""Ju and Zhou, arXiv 2405.05667, tables III to V."""
