"""The card of an exported file, made from the run."""

from __future__ import annotations

from ssmdiff import GroupShuffle, Run, __version__, providers

from ssmdiff_export.runtime.card import ExternalData, ModelCard, Parity, Process, Slot
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.verify import Comparison

USED = ("model.backbone", "model.block", "model.scan", "sample.scheduler")


def card(
    run: Run,
    interface: GraphInputs,
    precision: str,
    body: str,
    parity: Comparison | None,
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
        diffusion=Process(
            config.diffusion.timesteps,
            config.diffusion.beta_schedule,
            config.diffusion.beta_start,
            config.diffusion.beta_end,
            config.diffusion.prediction,
        ),
        scheduler=config.sample.scheduler,
        steps=config.sample.steps,
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
    )


def _slots(interface: GraphInputs) -> tuple[tuple[Slot, ...], dict[str, GroupShuffle]]:
    """Each S6 call with its input, and how the random orders among them are drawn."""
    recipes: dict[str, GroupShuffle] = {}
    slots = []
    for slot, (grid,) in enumerate(interface.plan.slots):
        name, key = interface.order_inputs.get(slot), None
        recipe = interface.plan.scan.at(slot).recipe(grid) if name else None
        if recipe is not None:
            document = recipe.to_json()
            known = (key for key, other in recipes.items() if other.to_json() == document)
            key = next(known, f"recipe_{len(recipes)}")
            recipes[key] = recipe
        slots.append(Slot(grid, name, key))
    return tuple(slots), recipes
