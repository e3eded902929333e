"""``ssmdiff data prepare``: files to a store, by several processes, resumable at any moment.

Each few cases are a part, whole or not there, under a name that is a hash of the files and of the
recipe; see ``workplace``.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ssmdiff import ConfigError, DataError, SsmdiffError, printable, registry, write_atomically
from torch.utils.data import DataLoader, Dataset

from ssmdiff_data.copies import Copies
from ssmdiff_data.planning import Plan, chunks, plan_folder
from ssmdiff_data.planning_published import plan_published
from ssmdiff_data.recipe import Recipe
from ssmdiff_data.splitting import pseudonym, read_salt
from ssmdiff_data.store import ArraySpec, Store, StoreWriter, Table
from ssmdiff_data.stored_told import COLUMNS
from ssmdiff_data.units import IMAGE, MASK, PlannedCase, Rows, rows_of
from ssmdiff_data.workplace import is_done, locked, own_salt, place_of, publish, refuse, remove

_VERSION = 1
"""Part of a part's name: a change that moves any pixel gets a new one."""

Bars = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Prepared(NamedTuple):
    """A store that is made, and what a person is told of it."""

    store: Store
    lines: tuple[str, ...]


def quiet(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """No bar."""
    return nullcontext(lambda count: None)


def prepare(
    path: str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    published: str | None = None,
    options: Mapping[str, Any] | None = None,
    salt_file: str | Path | None = None,
    workers: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
    bars: Bars = quiet,
) -> Prepared:
    """Make a store of a folder; called again after it was killed, it goes on.

    Args:
        path: The folder.
        out: The store.
        recipe: How; for a published data set see :func:`recipe_of`.
        published: The name of a data set whose folder it is.
        options: Of its ``cases``.
        salt_file: The salt of the patients' hashes; None: one that is thrown away.
        workers: Processes that read.
        overwrite: Replace a store that is there.
        say: Is told a line at a time what is read and left out, before work starts.
        bars: Shows how far it is.

    Raises:
        ConfigError: There is something in ``out``, or an option does not fit.
        DataError: A file cannot be read, or nothing is left of the images.
    """
    root, target = Path(path).expanduser(), Path(out).expanduser()
    recipe = recipe or Recipe()
    work = place_of(target)
    refuse(root, target, overwrite, work)
    if (done := _done(target, work, overwrite)) is not None:
        return done
    with bars("looking at the files", 0) as advance:
        if published is None:
            plan = plan_folder(root, recipe, lambda: advance(1))
        else:
            plan = plan_published(root, published_dataset(published), options or {}, recipe)
    for line in plan.lines:
        say(line)
    for doubt in plan.warnings:
        say(f"warning: {doubt}")
    with locked(work), _told_of_the_disk(work):
        salt = read_salt(Path(salt_file)) if salt_file else own_salt(work)
        kept = "kept in --salt-file" if salt_file else "drawn for this store and thrown away"
        say(f"patients in the store: hashes under a salt that is {kept}")
        parts = _make_parts(plan, recipe, work, salt, workers, bars)
        lines, doubt = _put_together(plan, recipe, parts, work, salt, published, bars)
        if doubt:
            say(f"warning: {doubt}")
        store = publish(work, target)
    return Prepared(store, tuple(lines))


@contextmanager
def _told_of_the_disk(work: Path) -> Iterator[None]:
    """Readers say themselves what is wrong with a file; what is left is a disk that is full."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {printable(work)}: {error.strerror or error}. What is done so far is "
            "kept; the same command goes on"
        ) from error


def published_dataset(name: str) -> Any:
    """The class of a data set that knows its official folder.

    Raises:
        ConfigError: There is none of that name.
    """
    factory = registry().find("dataset", name).factory()
    if not hasattr(factory, "cases"):
        raise ConfigError(
            f"--as {name}: that data set is not made from a folder. Those that are: "
            f"{', '.join(published_names())}"
        )
    return factory


def published_names() -> list[str]:
    """Data sets that ``--as`` takes."""
    found = []
    for entry in registry().all("dataset"):
        try:
            factory = entry.factory()
        except SsmdiffError:  # a broken plugin is no reason not to list the others
            continue
        if hasattr(factory, "cases"):
            found.append(entry.component.name)
    return found


def _done(target: Path, work: Path, overwrite: bool) -> Prepared | None:
    if not is_done(target, work, overwrite):
        return None
    remove(work)
    store = Store(target)
    return Prepared(store, (f"store: {store.count} images in {printable(target)}",))


class _Work(Dataset[str]):
    """Makes part number i; an error is given back, since what is raised arrives as a traceback."""

    def __init__(
        self, todo: Sequence[tuple[Path, tuple[PlannedCase, ...]]], recipe: Recipe, dtype: str
    ) -> None:
        self.todo, self.recipe, self.dtype = todo, recipe, dtype

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, i: int) -> str:
        path, cases = self.todo[i]
        try:
            write_atomically(path, rows_of(cases, self.recipe, self.dtype).to_bytes())
        except DataError as error:
            return str(error)
        return ""


def _make_parts(
    plan: Plan, recipe: Recipe, work: Path, salt: bytes, workers: int, bars: Bars
) -> list[tuple[Path, tuple[PlannedCase, ...]]]:
    """The parts that are missing, made; all of them, in the order of the cases."""
    per_part = 32 if all(_is_small(case) for case in plan.cases) else 1
    parts = [
        (work / "parts" / f"{_key(group, recipe, plan, salt)}.npz", group)
        for group in chunks(plan.cases, per_part)
    ]
    todo = [(path, group) for path, group in parts if not path.is_file()]
    loader = DataLoader(
        _Work(todo, recipe, plan.dtype),
        batch_size=None,
        num_workers=min(workers, len(todo)),
        worker_init_fn=_quiet_worker if workers else None,
    )
    with bars("reading", len(plan.cases)) as advance:
        advance(len(plan.cases) - sum(len(group) for _, group in todo))
        try:
            for (_, group), error in zip(todo, loader, strict=True):
                if error:
                    raise DataError(
                        f"{error}. What is done so far is kept; the same command goes on. "
                        "--on-bad leave-out leaves such files out"
                    )
                advance(len(group))
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                "a process that reads died; the system may be short of memory. Try fewer "
                "--workers; the same command goes on"
            ) from None
    return parts


def _quiet_worker(worker: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the main process
    torch.set_num_threads(1)


def _is_small(case: PlannedCase) -> bool:
    """A picture, by its one small file: some of them make a part."""
    files = case.arrays[IMAGE].source.files
    try:
        return len(files) == 1 and files[0].stat().st_size < 2**22
    except OSError:
        return False


def _key(cases: Sequence[PlannedCase], recipe: Recipe, plan: Plan, salt: bytes) -> str:
    """The name of a part: of everything that decides what is in it."""
    known = hmac.new(salt, f"{_VERSION} {plan.dtype} {recipe.on_bad}".encode(), hashlib.sha256)
    known.update(json.dumps(recipe.record(), sort_keys=True).encode())
    known.update(repr((recipe.channels, plan.mask_names)).encode())
    for case in cases:
        known.update(repr((case.name, case.label, sorted(case.numbers.items()))).encode())
        for array, found in sorted(case.arrays.items()):
            known.update(repr((array, found.reader, found.options, found.source.part)).encode())
            for file in found.source.files:
                try:
                    status = file.stat()
                except OSError as error:
                    raise DataError(f"{printable(file)}: {error.strerror}") from None
                known.update(os.fsencode(file.name))
                known.update(f" {status.st_size} {status.st_mtime_ns} ".encode())
    return known.hexdigest()[:32]


def _put_together(
    plan: Plan,
    recipe: Recipe,
    parts: Sequence[tuple[Path, tuple[PlannedCase, ...]]],
    work: Path,
    salt: bytes,
    published: str | None,
    bars: Bars,
) -> tuple[list[str], str]:
    """The store, in ``work/store``; lines for people, and a doubt if there is one."""
    read = functools.lru_cache(maxsize=1)(_read_part)
    counts: list[int] = []
    bad: list[str] = []
    units: set[str] = set()
    total, first = 0, None
    for path, _ in parts:
        rows = read(path)
        counts += rows.counts
        total += rows.total
        bad += rows.bad
        units |= set(rows.units) - {""}
        first = first or (rows if rows.arrays else None)
    kept = sum(counts)
    if first is None or not kept:
        raise DataError(
            f"no slice is left of {total} (slices {recipe.slices})"
            + (f"; {len(bad)} images cannot be read, the first: {bad[0]}" if bad else "")
        )
    specs = {
        name: ArraySpec(values.shape[1:], values.dtype.name, "labels", plan.mask_names)
        if name == MASK
        else ArraySpec(values.shape[1:], values.dtype.name)
        for name, values in first.arrays.items()
    }
    folder = work / "store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = StoreWriter(folder, kept, specs)
    numbers: dict[str, list[float]] = {name: [] for name in first.numbers}
    copies = Copies()
    with bars("writing the store", len(parts)) as advance:
        for path, group in parts:
            rows = read(path)
            if rows.arrays:
                _same_channels(rows, specs, group)
                writer.append(rows.arrays)
                copies.look(rows.arrays[IMAGE], group, rows.counts)
                for name in numbers:
                    numbers[name] += rows.numbers[name].tolist()
            advance(1)
    spread = [case for case, count in zip(plan.cases, counts, strict=True) for _ in range(count)]
    names = {case.patient: pseudonym(case.patient, salt) for case in plan.cases}
    table = Table(
        [case.split for case in spread],
        [names[case.patient] for case in spread],
        [case.label for case in spread],
        numbers,
    )
    told = {**plan.told, "slices": f"{recipe.slices}: {kept} of {total} are kept"}
    facts: dict[str, Any] = {
        "modality": plan.modality,
        "body_part": plan.body_part,
        "units": units.pop() if len(units) == 1 else "",
        "recipe": recipe.record(),
        "told": told,
    }
    columns: Mapping[str, Any] = plan.columns
    lines = [f"slices: {kept} of {total} are kept ({recipe.slices})"]
    if bad:
        lines.append(f"cannot be read: {len(bad)} images are left out: {'; '.join(bad[:5])}")
        told["cannot be read"] = f"{len(bad)} images are left out"
    if copies.count:
        told["copies"] = copies.told()
    if published is not None:
        dataset = published_dataset(published)
        facts["dataset"] = published
        facts["terms"] = dataset.TERMS._asdict()
        columns = getattr(dataset, "COLUMNS", {})
        lines += dataset.notes(kept)
    if columns:
        facts[COLUMNS] = dict(columns)
    digest = writer.finish(table, plan.classes, facts)
    lines.append(f"store: {kept} images, {', '.join(specs)}, digest {digest[:16]}")
    return lines, copies.sentence()


def _same_channels(
    rows: Rows, specs: Mapping[str, ArraySpec], cases: Sequence[PlannedCase]
) -> None:
    for name, values in rows.arrays.items():
        if values.shape[1:] != specs[name].shape:
            raise DataError(
                f"{cases[0].name} has {values.shape[1]} channels and others "
                f"{specs[name].shape[0]}. Give --channels 1 (colour becomes grey) or --channels 3"
            )


def _read_part(path: Path) -> Rows:
    try:
        return Rows.from_file(path)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Delete it; the same command goes on"
        ) from None
