"""What a scan must do: the six proofs of the catalogue, and what a network relies on besides.

Notation: K directions, L tokens; ``order[k, t]`` is the token visited at time t. Tables are counted
as a kernel reads them, never as their inverse.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmdiff.errors import ConfigError, ContractError, SsmdiffError
from ssmdiff.orders.scan import Grid, OrderPlan, Scan, ScanOrder, ScanSlot, checked_order, size_text
from ssmdiff.orders.seeds import stream
from ssmdiff.registry.plugin import name_of
from ssmdiff.testing import probes, scan_numerics
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

IMAGES: tuple[Grid, ...] = (
    *itertools.product(range(1, 10), repeat=2),
    (14, 14),
    (16, 16),
    (5, 12),
    (1, 64),
)  # (7, 5), which the catalogue lists as well, is among the first
VOLUMES: tuple[Grid, ...] = tuple(itertools.product(range(1, 5), repeat=3))
LARGE: Grid = (256, 256)
LARGE_CPU_S = 2.0
SLOTS = 12  # S6 calls of a network; a choice per layer has gone round by then


class ScanSubject(Subject):
    """A scan, and its order of every grid that it serves."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.scan: Scan = self.build()

    def draw(self, scan: Scan, grid: Grid, step: int = 0, slot: int = 0) -> ScanOrder:
        """An order as a network draws it, not from any cache."""
        generator = stream(0, "order", step, slot) if scan.stochastic else None
        return checked_order(scan, grid, generator)

    @functools.cached_property
    def outcomes(self) -> dict[Grid, ScanOrder | BaseException]:
        """For each grid its order, or the error that came instead."""
        found: dict[Grid, ScanOrder | BaseException] = {}
        for grid in (*IMAGES, *VOLUMES):
            try:
                found[grid] = self.draw(self.scan, grid)
            except (Exception, SystemExit) as error:
                found[grid] = error
        return found

    @functools.cached_property
    def orders(self) -> dict[Grid, ScanOrder]:
        """The orders of the grids that are served."""
        served = {g: order for g, order in self.outcomes.items() if isinstance(order, ScanOrder)}
        if not served:
            raise NotApplicableError("no grid is served; see 'grids' and 'permutation'")
        return served

    def some(self, wanted: int = 3) -> list[Grid]:
        """A few of the grids that are served: oblong images, squares and volumes in turn."""
        groups: dict[tuple[int, bool], list[Grid]] = {}
        for grid in sorted(self.orders, key=lambda g: (1 in g, -math.prod(g), g)):
            groups.setdefault((len(grid), len(set(grid)) == 1), []).append(grid)
        in_turn = itertools.zip_longest(*(groups[key] for key in sorted(groups)))
        return [grid for turn in in_turn for grid in turn if grid][:wanted]


suite = Suite("scan", ScanSubject)


@suite.check
def grids(subject: ScanSubject) -> str:
    """It serves at least one grid, and refuses others with a ConfigError."""
    refused = [g for g, error in subject.outcomes.items() if isinstance(error, ConfigError)]
    for grid, error in subject.outcomes.items():
        if isinstance(error, BaseException) and not isinstance(error, SsmdiffError):
            raise ViolationError(
                f"{name_of(error)} on a {size_text(grid)} grid",
                "an order, or a ssmdiff.errors.ConfigError that says which grids it serves",
            )
    if len(refused) == len(subject.outcomes):
        raise ViolationError(
            f"no grid is served; the last refusal: {subject.outcomes[refused[-1]]}",
            "at least one of the grids up to 9 x 9, or 14 x 14, 16 x 16, 5 x 12 or 1 x 64",
        )

    def served(of: tuple[Grid, ...]) -> str:
        return f"{len(of) - sum(grid in refused for grid in of)} of {len(of)}"

    return f"serves {served(IMAGES)} grids of images, {served(VOLUMES)} of volumes"


@suite.check
def permutation(subject: ScanSubject) -> str:
    """Proof 1: on every grid each direction visits each token once, K as ``directions`` says."""
    for error in subject.outcomes.values():
        if isinstance(error, ContractError):
            raise error
    for grid, order in subject.orders.items():
        expected = np.arange(math.prod(grid))
        for k, row in enumerate(order.index):
            if not np.array_equal(np.sort(row), expected):
                raise ViolationError(
                    f"direction {k} on a {size_text(grid)} grid is no permutation",
                    f"each token from 0 to {expected[-1]} once",
                )
    rows = sum(order.directions for order in subject.orders.values())
    return f"{rows} directions over {len(subject.orders)} grids"


@suite.check
def inverse(subject: ScanSubject) -> str:
    """Proof 2: inverse[order] = order[inverse] = arange, and merge(expand(x)) = K x."""
    for grid, order in subject.orders.items():
        tokens = np.arange(order.length)
        for k, (row, rank) in enumerate(zip(order.index, order.inverse, strict=True)):
            if not (np.array_equal(rank[row], tokens) and np.array_equal(row[rank], tokens)):
                raise ViolationError(
                    f"direction {k} on a {size_text(grid)} grid: the inverse does not undo the "
                    "order",
                    "inverse[order] = order[inverse] = 0 .. L - 1",
                )
        x = np.random.default_rng(0).integers(-1000, 1000, order.length)
        merged = np.zeros_like(x)
        for row in order.index:
            np.add.at(merged, row, x[row])
        if not np.array_equal(merged, order.directions * x):
            raise ViolationError(f"merge(expand(x)) is not K x on a {size_text(grid)} grid", "K x")
    return f"merge(expand(x)) = K x on {len(subject.orders)} grids"


@suite.check
def continuity(subject: ScanSubject) -> str:
    """Proof 3: a scan that says ``continuous = True`` steps between neighbours alone.

    The claim binds on grids whose sides are all even, where a Hilbert curve can keep it; jumps on
    other grids are counted and named.
    """
    if not getattr(subject.scan, "continuous", False):
        raise NotApplicableError("does not call itself continuous")
    jumps_elsewhere = 0
    bound = 0
    for grid, order in subject.orders.items():
        jump = _first_jump(order, grid)
        if any(side % 2 for side in grid):
            jumps_elsewhere += jump is not None
            continue
        bound += 1
        if jump:
            k, t, a, b = jump
            raise ViolationError(
                f"direction {k} on a {size_text(grid)} grid jumps from {a} to {b} at time {t}",
                "every step to a neighbour, counted as a kernel reads the table",
                "return the visiting list, not its inverse; or leave out continuous = True",
            )
    odd = len(subject.orders) - bound
    return f"no jump on {bound} grids of even sides; on {jumps_elsewhere} of {odd} others a jump"


def _first_jump(order: ScanOrder, grid: Grid) -> tuple[int, int, Grid, Grid] | None:
    """Direction, time, and both places of the first step between tokens that do not touch."""
    places = np.stack(np.unravel_index(order.index, grid), -1)  # (K, L, dims)
    far = np.abs(np.diff(places, axis=1)).sum(-1) != 1
    if order.restart is not None:
        far &= ~order.restart[:, 1:]
    if not far.any():
        return None
    k, t = (int(i) for i in np.argwhere(far)[0])
    a, b = (tuple(map(int, places[k, time])) for time in (t, t + 1))
    return k, t + 1, a, b


@suite.check
def kernels(subject: ScanSubject) -> str:
    """Proof 4: every kernel that runs here agrees with float64 along these orders."""
    orders = {grid: subject.orders[grid] for grid in subject.some()}
    return scan_numerics.kernels_agree(orders)


@suite.check
def graphs(subject: ScanSubject) -> str:
    """Proof 4: the op, a compiled and an exported graph give the same bits for these orders."""
    orders = {grid: subject.orders[grid] for grid in subject.some(2)}
    return scan_numerics.graphs_agree(orders)


@suite.check
def gradient(subject: ScanSubject) -> str:
    """Proof 5: the gradient of expand is merge of the gradient."""
    orders = {grid: subject.orders[grid] for grid in subject.some(8)}
    return scan_numerics.gradient_of_expand_is_merge(orders)


@suite.check
def randomness(subject: ScanSubject) -> str:
    """Proof 6: an order is a function of the grid and the generator's stream alone."""
    scan, grids = subject.scan, subject.some(6)
    before = probes.global_states()
    first = {grid: subject.draw(scan, grid) for grid in grids}
    if probes.global_states() != before:
        raise ViolationError(
            "drawing an order moved a global random state (random, numpy.random or torch)",
            "numbers from the generator that order() is given, and from nothing else",
        )
    if type(scan.stochastic) is not bool:
        raise ViolationError(f"stochastic is {scan.stochastic!r}", "True or False")
    with probes.disturbed_globals():
        # Another instance, in another sequence: what another process does after a resume.
        other = subject.build()
        again = {grid: subject.draw(other, grid) for grid in reversed(grids)}
    for grid in grids:
        if not _equal_orders(first[grid], again[grid]):
            raise ViolationError(
                f"two orders of a {size_text(grid)} grid differ for the same generator",
                "the same order on every process, after every resume and in the exported graph",
                "draw from the generator that order() is given, and keep nothing between calls",
            )
    return _streams(subject, grids) if scan.stochastic else _fixed(subject, grids)


def _fixed(subject: ScanSubject, grids: list[Grid]) -> str:
    for grid in grids:
        drawn = [
            checked_order(subject.scan, grid, np.random.default_rng(seed)) for seed in (1, 2, 3)
        ]
        if not all(_equal_orders(drawn[0], order) for order in drawn):
            raise ViolationError(
                f"orders of a {size_text(grid)} grid differ with the generator, and stochastic is "
                "False",
                "stochastic = True, or an order that ignores the generator",
            )
    return f"fixed; {len(grids)} grids drawn again, the same"


def _streams(subject: ScanSubject, grids: list[Grid]) -> str:
    scan = subject.scan
    roomy = [grid for grid in grids if math.prod(grid) >= 16]
    for grid in roomy:
        try:
            scan.order(grid, None)
        except ConfigError:
            pass
        else:
            raise ViolationError(
                "order(grid) without a generator gave an order, and stochastic is True",
                "a ConfigError that asks for a generator: there is no other source to draw from",
            )
        orders = [subject.draw(scan, grid, *place) for place in ((0, 0), (1, 0), (0, 1), (2, 3))]
        for (i, a), (j, b) in itertools.combinations(enumerate(orders), 2):
            if _equal_orders(a, b):
                raise ViolationError(
                    f"the orders of draws {i} and {j}, of other steps and slots, are equal on a "
                    f"{size_text(grid)} grid",
                    "different orders from different streams",
                )
    return f"random; a function of the stream on {len(grids)} grids, other between steps and slots"


@suite.check
def plan(subject: ScanSubject) -> str:
    """A network can draw it: an OrderPlan over the scan and over a deep copy gives the same."""
    slots = tuple(ScanSlot(grid) for grid in subject.some(SLOTS))
    original = OrderPlan(subject.scan, slots, 7).draw(3)
    copied = OrderPlan(copy.deepcopy(subject.scan), slots, 7).draw(3)
    if not all(_equal_orders(a, b) for a, b in zip(original, copied, strict=True)):
        raise ViolationError(
            "a deep copy of the scan gives other orders",
            "the same: averaged weights are a deep copy of the network, scan included",
        )
    return f"{len(slots)} slots drawn, and by a deep copy"


@suite.check
def layers(subject: ScanSubject) -> str:
    """``at(slot)`` is a scan that serves the same grids, the same one every time."""
    grids = subject.some(3)
    kinds = 0
    for slot in range(SLOTS):
        scan = subject.scan.at(slot)
        if not isinstance(scan, Scan):
            raise ViolationError(f"at({slot}) is a {type(scan).__name__}", "a ssmdiff.Scan")
        kinds += scan is not subject.scan
        for grid in grids:
            a, b = (subject.draw(subject.scan.at(slot), grid) for _ in range(2))
            if not _equal_orders(a, b):
                raise ViolationError(
                    f"at({slot}) gives two orders of a {size_text(grid)} grid",
                    "the same scan whenever the slot is the same",
                )
    return "varies by layer" if kinds else "the same in every layer"


@suite.check
def read_only(subject: ScanSubject) -> str:
    """Tables cannot be written to: they are shared by the layers and the steps of a network."""
    for grid in subject.some(3):
        order = subject.draw(subject.scan, grid)
        for name in ("index", "inverse", "restart"):
            table = getattr(order, name)
            if table is not None and table.flags.writeable:
                raise ViolationError(
                    f"{name} of a {size_text(grid)} grid can be written to",
                    "a read-only array",
                    "return ssmdiff.ScanOrder(index) and leave its arrays as they are",
                )
        if order.index.dtype != np.int32:
            raise ViolationError(f"index is {order.index.dtype}", "int32")
    return "tables are read-only int32"


@suite.check
def speed(subject: ScanSubject) -> str:
    """A grid of 256 x 256 takes well under a second."""
    start_s = time.process_time()
    try:
        subject.draw(subject.scan, LARGE)
    except ConfigError as error:
        raise NotApplicableError(f"refuses a {size_text(LARGE)} grid: {error}") from error
    took_s = time.process_time() - start_s
    if took_s > LARGE_CPU_S:
        raise ViolationError(
            f"{took_s:.1f} s for a {size_text(LARGE)} grid",
            f"under {LARGE_CPU_S:g} s",
            "index arithmetic over whole numpy arrays instead of a loop over tokens",
        )
    return f"{took_s * 1000:.0f} ms for a {size_text(LARGE)} grid"


def _equal_orders(a: ScanOrder, b: ScanOrder) -> bool:
    restarts = (a.restart, b.restart)
    if any(restart is None for restart in restarts):
        equal = restarts == (None, None)
    else:
        equal = np.array_equal(*restarts)  # type: ignore[arg-type]
    return equal and np.array_equal(a.index, b.index)
