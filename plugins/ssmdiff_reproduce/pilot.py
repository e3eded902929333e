"""The pilot: how many images a run must see until seeds of one setting lie near each other."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssmdiff import ConfigError, write_atomically

from ssmdiff_reproduce import job
from ssmdiff_reproduce.forms import duration
from ssmdiff_reproduce.outcome import STEADY

SEEDS = 3


def run_pilot(
    paper: str,
    table: str,
    scale: str | None,
    out: str | Path | None,
    budgets: Sequence[int],
    asked: Mapping[str, Any],
    say: Callable[[str], None] = job.silent,
) -> str:
    """Train the base of a table for each budget and seed, and say which budget is enough.

    Args:
        paper: Its name.
        table: Its number.
        scale: ``paper`` or ``cpu``.
        out: Where; ``pilot`` and ``pilot.json`` in it.
        budgets: Images seen by a run.
        asked: Of :func:`ssmdiff_reproduce.job.plan`.
        say: Is told what is done.

    Returns:
        A table: budget, distances of the seeds, their spread as a share of the distance.

    Raises:
        ConfigError: As :func:`ssmdiff_reproduce.job.plan`.
    """
    if table.startswith("figure"):
        raise ConfigError("--pilot is of a table of distances: 1 or 2")
    whole = {**asked, "seeds": asked.get("seeds") or SEEDS}
    base = job.plan(paper, table, scale, out, **whole)
    records = []
    for budget in budgets:
        more = {**whole, "images_seen": budget, "systems": asked.get("systems") or (base.base,)}
        planned = job.plan(paper, table, scale, base.out / "pilot" / str(budget), **more)
        outcome = job.run(planned, None, False, True, say)
        if outcome is None:  # of another process
            continue
        records += [
            {
                "images_seen": budget,
                "data": line.data,
                "system": line.system,
                "distances": list((line.values or {}).values()),
                "trained_s": line.trained_s,
            }
            for line in outcome.lines
        ]
    if records:
        write_atomically(base.out / "pilot.json", json.dumps(records, indent=2).encode())
    lines = [f"{'images seen':>12}  {'spread':>6}  {'a run':>9}  system and distances of the seeds"]
    for record in records:
        found = record["distances"]
        share = statistics.stdev(found) / statistics.fmean(found) if len(found) > 1 else None
        spread = "-" if share is None else f"{share:.0%}"
        each = ", ".join(f"{value:.4g}" for value in found)
        took = duration(record["trained_s"] or 0)
        lines.append(
            f"{record['images_seen']:>12,}  {spread:>6}  {took:>9}  {record['data']}, "
            f"{record['system']}: {each}"
        )
    lines.append(f"A budget decides something where the spread is below {STEADY:.0%}.")
    return "\n".join(lines)
