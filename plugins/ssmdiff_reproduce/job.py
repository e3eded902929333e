"""The job ``reproduce``: tables and figures of a paper, computed anew.

``ssmdiff.job("reproduce")`` is :func:`reproduce`. Tables III to V are arithmetic over the paper's
counts. Tables I and II and figure 2 are trained, drawn and judged by the jobs ``train`` and
``evaluate``: a plan of cells, each left in files, so that what was stopped goes on, and that
processes and hosts which see one folder share them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ssmdiff
from ssmdiff import ConfigError, did_you_mean

from ssmdiff_reproduce.counts import Reproduction, from_counts
from ssmdiff_reproduce.outcome import Outcome, collect
from ssmdiff_reproduce.plan import Cell, Planned, make_plan
from ssmdiff_reproduce.running import FAILED, do, failure, get_ready, is_done
from ssmdiff_reproduce.scales import SCALES, changed, load_scale
from ssmdiff_reproduce.sharing import Share, alone, numbered

PAPERS = ("vm-ddpm",)
TABLES = ("1", "2", "5", "figure-2")
GRACE_S = 300
"""Until every process of a launch has begun."""
Say = Callable[[str], None]


def silent(_: str) -> None:
    """Nothing is told."""


def reproduce(
    paper: str,
    table: str | int,
    scale: str | None = None,
    out: str | Path | None = None,
    *,
    task: int | None = None,
    show_real: bool = False,
    progress: bool = False,
    say: Say = silent,
    **asked: Any,
) -> Any:
    """Compute a table or a figure of a paper.

    Args:
        paper: ``vm-ddpm``.
        table: ``1``, ``2``, ``figure-2``; or 5: tables III to V, from the counts of III and IV.
        scale: ``paper`` or ``cpu``; of 5 none.
        out: The folder of everything; ``reproduced/PAPER-SCALE`` by default.
        task: Only this one of the plan, and no table.
        show_real: Show real images in figure 2 though their data is not marked open.
        progress: Show the bars of training and judging.
        say: Is told what is done.
        asked: Of :func:`plan`.

    Returns:
        A :class:`Reproduction` of table 5, an :class:`Outcome` of 1 and 2, a :class:`Sheet` of
        figure 2; None where the table is another process's to make.

    Raises:
        ConfigError: It is not known here, cannot be planned, or a run is there that has another
            configuration.
        PluginNotFoundError: A job that computes it is not installed.
        RunInterruptedError: A signal asked to stop; the same call goes on.
    """
    if str(table) == "5":
        _refuse_paper(paper)
        return from_counts(paper)
    planned = plan(paper, table, scale, out, **asked)
    return run(planned, task, show_real, progress, say)


def plan(
    paper: str,
    table: str | int,
    scale: str | None = None,
    out: str | Path | None = None,
    *,
    data: Mapping[str, str] | None = None,
    systems: Iterable[str] = (),
    seeds: int | None = None,
    images_seen: int | None = None,
    n: int | None = None,
    reference: int | None = None,
    steps: int | None = None,
    sets: Sequence[str] = (),
    judged: Mapping[str, Mapping[str, Any]] | None = None,
) -> Planned:
    """What a table would compute; nothing is written.

    Args:
        paper: ``vm-ddpm``.
        table: ``1``, ``2`` or ``figure-2``.
        scale: ``paper`` or ``cpu``.
        out: The folder of everything.
        data: Data sets by name, with the stores of those that need one.
        systems: Those of the table that are wanted.
        seeds: How many, from 0.
        images_seen: Of each run.
        n: Images that are judged of each system.
        reference: Reference images at most.
        steps: Sampling steps of every system that has some.
        sets: ``path.to.key=value`` for every run that has such a key.
        judged: Options of feature networks and metrics by name.

    Raises:
        ConfigError: It is not known here, or an option does not fit.
    """
    _refuse_paper(paper)
    table = str(table)
    if table not in TABLES or table == "5":
        hint = did_you_mean(table, TABLES)
        raise ConfigError(f"--table {table} of {paper} is not computed here; {hint}")
    if scale is None:
        raise ConfigError(f"--table {table} needs --scale: {' or '.join(SCALES)}")
    chosen = changed(
        load_scale(paper, scale), images_seen=images_seen, drawn=n, reference=reference
    )
    folder = Path(out) if out is not None else Path("reproduced") / f"{paper}-{scale}"
    return make_plan(paper, table, chosen, scale, folder, data, systems, seeds, sets, judged, steps)


def run(
    planned: Planned,
    task: int | None = None,
    show_real: bool = False,
    progress: bool = False,
    say: Say = silent,
    share: Share | None = None,
) -> Any:
    """Do the tasks of this process, and on the first one wait for the others and make the table.

    Args:
        planned: Of :func:`plan`.
        task: Only this one.
        show_real: As :func:`reproduce`.
        progress: Likewise.
        say: Likewise.
        share: Of this process; by default as torchrun has it.
    """
    if task is not None and not 0 <= task < len(planned.tasks):
        raise ConfigError(f"--task {task}: the plan has the tasks 0 to {len(planned.tasks) - 1}")
    with alone() if share is None else nullcontext(share) as own:
        begun_ns = _mark(planned)
        mine = numbered(planned, task, own)
        get_ready(mine)
        for count, one in enumerate(mine, start=1):
            if all(map(is_done, one.cells)):
                continue
            say(f"{count} of {len(mine)}: {one}")
            do(one, say, progress and own.rank == 0)
        if task is not None:
            failed = [text for cell in planned.tasks[task].cells if (text := failure(cell))]
            if failed:
                raise ssmdiff.SsmdiffError(failed[0])
            return None
        if own.rank:
            return None
        _wait(planned, begun_ns, say)
    if planned.table.startswith("figure"):
        from ssmdiff_reproduce.sheet import make_sheet

        return make_sheet(planned, show_real)
    return _written(collect(planned))


def _written(outcome: Outcome) -> Outcome:
    from ssmdiff_reproduce.forms import write

    write(outcome)
    return outcome


def _refuse_paper(paper: str) -> None:
    if paper not in PAPERS:
        raise ConfigError(f"there is no paper {paper!r} here; {did_you_mean(paper, PAPERS)}")


def _mark(planned: Planned) -> int:
    """The time of now, by the clock of the folder: hosts need not agree on the hour."""
    planned.out.mkdir(parents=True, exist_ok=True)
    mark = planned.out / ".begun"
    mark.touch()
    return mark.stat().st_mtime_ns


def _wait(planned: Planned, begun_ns: int, say: Say) -> None:
    """Until every cell is done, or failed since this began.

    A process that failed before this one began is believed later: by then whoever has the cell has
    begun too, and forgotten what failed in a call before.
    """
    begun = told = time.monotonic()
    while True:
        since_ns = begun_ns if time.monotonic() - begun < GRACE_S else 0
        waiting = [c for c in planned.cells if not (is_done(c) or _failed(c, since_ns))]
        if not waiting:
            return
        if time.monotonic() - told > 60:
            say(f"waiting for {len(waiting)} cells of other processes, the first {waiting[0]}")
            told = time.monotonic()
        time.sleep(0.5)


def _failed(cell: Cell, since_ns: int) -> bool:
    try:
        return (cell.folder / FAILED).stat().st_mtime_ns >= since_ns
    except OSError:
        return False


__all__ = ["Outcome", "Planned", "Reproduction", "plan", "reproduce", "run"]
