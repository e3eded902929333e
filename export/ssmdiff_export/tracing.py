"""What is exported of a run: its graph, traced by torch, and its card.

The graph is a backbone with its orders as inputs or constants. torch.export sees the scan as one
operator; `lowering.py` puts an ONNX node in its place.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ssmdiff import (
    DTYPES,
    FLOW,
    BackboneMethod,
    DiffusionMethod,
    ExportError,
    ExportPrecision,
    GroupShuffle,
    Method,
    OrderPlan,
    Run,
    ScanOrder,
    SsmdiffError,
    __version__,
    note_order,
    order_digests,
    order_plan,
    parts_of,
    providers,
)
from torch import Tensor, nn

from ssmdiff_export.generators import (
    ExportedGenerator,
    latent_of_run,
    makes_in_one_call,
)
from ssmdiff_export.lowering import lowering
from ssmdiff_export.precision import in_precision
from ssmdiff_export.runtime.card import (
    ExternalData,
    Flow,
    ModelCard,
    Parity,
    Process,
    ScanBody,
    Slot,
)

BATCH = "batch"
USED = ("method.network", "model.backbone", "model.block", "model.scan", "sample.scheduler")
"""The components that a card names with their distributions."""


@dataclass(frozen=True)
class GraphInputs:
    """The inputs of a graph: what a run's model needs beside the image and the timesteps."""

    plan: OrderPlan
    conditional: bool
    walks: bool = True
    """Whether the model is called at timesteps; a generator is not."""

    @classmethod
    def of(cls, run: Run) -> GraphInputs:
        """Those of a run.

        Raises:
            ExportError: No file can hold its method.
        """
        if makes_in_one_call(run):
            return cls(run.method.plan, False, False)
        method = run.method
        if not isinstance(method, DiffusionMethod) and _flow(method) is None:
            raise ExportError(
                f"the run was trained by method {run.config.method['name']!r}; a file holds a "
                "diffusion or a flow, or a network that makes an image in one call"
            )
        conditional = run.config.model.class_conditional
        return cls(order_plan(run.model, run.config, 0), conditional)

    def random(self, slot: int) -> bool:
        """Whether the orders of a slot are drawn anew at every step, and so are an input."""
        return self.plan.scan.at(slot).stochastic

    @property
    def order_inputs(self) -> dict[int, str]:
        """Slot -> input, for the random ones."""
        slots = range(len(self.plan.slots))
        return {slot: f"order_{slot}" for slot in slots if self.random(slot)}

    @property
    def names(self) -> list[str]:
        timesteps = ["timesteps"] if self.walks else []
        context = ["context"] if self.conditional else []
        return ["x", *timesteps, *context, *self.order_inputs.values()]

    def arrays(self, orders: Sequence[ScanOrder]) -> dict[str, np.ndarray]:
        """The order inputs of one step, (K, L) int32."""
        return {name: orders[slot].coded for slot, name in self.order_inputs.items()}


class ExportedModule(nn.Module):
    """``(x, timesteps, context or None, order inputs) -> prediction``, float32 outside.

    Args:
        model: The backbone, in the precision of the file.
        interface: Its inputs.
        dtype: The precision.
    """

    def __init__(self, model: nn.Module, interface: GraphInputs, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        drawn = interface.plan.draw(0)
        self.random = interface.order_inputs
        self.restarts = [order.restart is not None for order in drawn]
        fixed: dict[bytes, str] = {}
        self.fixed: dict[int, str] = {}
        for slot, order in enumerate(drawn):
            if slot in self.random:
                continue
            key = order.coded.tobytes()
            if key not in fixed:
                fixed[key] = f"fixed_{len(fixed)}"
                self.register_buffer(fixed[key], torch.tensor(order.coded))
            self.fixed[slot] = fixed[key]

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None, orders: list[Tensor]
    ) -> Tensor:
        given = dict(zip(self.random, orders, strict=True))
        all_orders = [self._order(slot, given) for slot in range(len(self.restarts))]
        y: Tensor = self.model(
            x=x.to(self.dtype), timesteps=timesteps, context=context, orders=all_orders
        )
        return y.float()

    def _order(self, slot: int, given: dict[int, Tensor]) -> Tensor:
        order: Tensor = given[slot] if slot in given else getattr(self, self.fixed[slot])
        # Noted, so that a block's graph holds no restarts that its scan never makes.
        return note_order(order, self.restarts[slot])


def trace(
    run: Run, interface: GraphInputs, precision: ExportPrecision, body: ScanBody | None = None
) -> Any:
    """The model of a run as a ``torch.export.ExportedProgram``: any batch, one image size.

    Args:
        run: The model.
        interface: Its inputs.
        precision: Of the weights and activations.
        body: Of an ONNX file: its node stands in the scan's place. None leaves torch's op.

    Raises:
        ExportError: torch.export cannot follow the model's code, or the body cannot do the scan.
    """
    dtype = DTYPES[precision]
    graph: nn.Module
    inputs: tuple[Any, ...]
    shapes: tuple[Any, ...]
    batch = {0: torch.export.Dim(BATCH, min=1)}
    if interface.walks:
        graph = ExportedModule(in_precision(run.model, dtype), interface, dtype).eval()
        x = torch.zeros(2, run.channels, *run.config.data.image_size)
        context = torch.zeros(2, dtype=torch.int64) if interface.conditional else None
        orders = [torch.tensor(a) for a in interface.arrays(interface.plan.draw(0)).values()]
        inputs = (x, torch.zeros(2), context, orders)
        fixed = [None] * len(orders)
        shapes = (batch, batch, batch if interface.conditional else None, fixed)
    else:
        graph, shapes = ExportedGenerator.of(run, dtype), (batch,)
        inputs = (torch.zeros(2, *run.noise.shape),)
    try:
        with quiet(), torch.no_grad(), lowering(body):
            return torch.export.export(graph, inputs, dynamic_shapes=shapes)
    except SsmdiffError:
        raise
    except Exception as error:  # whatever a stranger's block does under the tracer
        raise ExportError(
            f"the model cannot be exported: {_parts(run)} does not run under torch.export: "
            f"{first_line(error)}"
        ) from error


def card(
    run: Run,
    interface: GraphInputs,
    precision: str,
    body: str,
    parity: Parity | None,
    external: ExternalData | None = None,
) -> ModelCard:
    """What stands in the file's metadata.

    Args:
        run: The model.
        interface: Its inputs.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        body: How the scan is computed without our operator.
        parity: What the comparison with torch gave; None if it was left out.
        external: The file beside it that holds the weights.
    """
    config, model = run.config, run.config.model
    height, width = config.data.image_size
    slots, recipes = _slots(interface)
    return ModelCard(
        ssmdiff=__version__,
        components={k: v for k, v in providers(config).items() if k in USED},
        scan=model.scan,
        block=model.block,
        backbone=model.backbone,
        image_size=(height, width),
        channels=run.channels,
        class_names=tuple(run.classes),
        class_conditional=model.class_conditional,
        diffusion=_process(run) if isinstance(run.method, DiffusionMethod) else None,
        scheduler=config.sample.scheduler,
        steps=config.sampling_steps,
        precision=precision,
        body=body,
        checkpoint=run.checkpoint.path.name,
        weights_sha256=run.checkpoint.manifest["files"]["ema.safetensors"]["sha256"],
        slots=slots,
        recipes=recipes,
        parity=None
        if parity is None
        else Parity(parity.max_abs, parity.max_rel, parity.tolerance, parity.cases),
        external_data=external,
        terms=run.data.get("terms", {}),
        latent=None if interface.walks else latent_of_run(run),
        flow=_flow(run.method),
    )


def _process(run: Run) -> Process:
    d = run.config.diffusion
    return Process(d.timesteps, d.beta_schedule, d.beta_start, d.beta_end, d.prediction)


def _flow(method: Method) -> Flow | None:
    if not isinstance(method, BackboneMethod) or method.process != FLOW:
        return None
    return Flow(method.wired()["trained_shift"])


def _slots(interface: GraphInputs) -> tuple[tuple[Slot, ...], dict[str, GroupShuffle]]:
    """Each S6 call with its input, and how the random orders among them are drawn."""
    recipes: dict[str, GroupShuffle] = {}
    slots = []
    digests = order_digests(interface.plan)
    for slot, (grid,) in enumerate(interface.plan.slots):
        name, key = interface.order_inputs.get(slot), None
        recipe = interface.plan.scan.at(slot).recipe(grid) if name else None
        if recipe is not None:
            document = recipe.to_json()
            known = (key for key, other in recipes.items() if other.to_json() == document)
            key = next(known, f"recipe_{len(recipes)}")
            recipes[key] = recipe
        slots.append(Slot(grid, name, key, digests[slot]))
    return tuple(slots), recipes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters print, log and warn of; errors still come through."""
    disabled = logging.root.manager.disable
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)


def first_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _parts(run: Run) -> str:
    parts = parts_of(run.config.to_dict())
    return " with ".join(f"{kind} {name!r}" for kind, name in parts.items() if kind != "scan")
