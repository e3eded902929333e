"""A plan in words, with its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ssmdiff_reproduce.cost import costs
from ssmdiff_reproduce.forms import NAMES, NUMERALS, duration
from ssmdiff_reproduce.plan import Planned
from ssmdiff_reproduce.running import is_done
from ssmdiff_reproduce.sharing import Share


def lines_of(
    planned: Planned, timed: bool, world: int, say: Callable[[str], None]
) -> Iterator[str]:
    """The plan, a line for each task.

    Args:
        planned: What will be computed.
        timed: Time a few steps of each network that was not timed here yet, and tell the cost.
        world: Processes that share it.
        say: Is told of what takes a while.
    """
    found = costs(planned, say) if timed else {}
    cells = planned.cells
    done = sum(map(is_done, cells))
    what = f"table {NUMERALS.get(planned.table, planned.table)}"
    if planned.table.startswith("figure"):
        what = "figure 2"
    yield (
        f"{what} of {NAMES[planned.paper]}, scale {planned.scale_name}, in {planned.out}: "
        f"{len(planned.tasks)} runs, {len(cells)} cells, {done} of them done"
    )
    for task in planned.tasks:
        train = task.config.train
        there = sum(map(is_done, task.cells))
        text = f"{train.steps:,} steps of {train.batch_size}"
        if task.number in found:
            cost = found[task.number]
            text += f", {duration(cost.trained_s)} to train, {duration(cost.drawn_s)} to draw"
        state = "  done" if there == len(task.cells) else ""
        yield f"  {task.number:>3}  {task!s:<44} {text}{state}"
    for name, reason in planned.left_out.items():
        yield f"  left out: {name}: {reason}"
    if not found:
        return
    spent = [
        sum(
            found[task.number].total_s
            for task in Share(rank, world).of(planned.tasks)
            if task.number in found and not all(map(is_done, task.cells))
        )
        for rank in range(world)
    ]
    over = f" over {world} processes, the longest share" if world > 1 else ""
    yield (
        f"to do:{over} about {duration(max(spent))}, of training and drawing as the first steps of "
        "each network go here; judging comes on top"
    )
