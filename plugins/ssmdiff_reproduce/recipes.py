"""How the runs of a table were trained, in words: what its rows have in common, and what not."""

from __future__ import annotations

from ssmdiff import Config

from ssmdiff_reproduce.plan import Planned


def recipes(planned: Planned) -> list[str]:
    """A sentence for each way in which runs of the plan are trained, with the systems of each."""
    found: dict[str, dict[str, None]] = {}
    for task in planned.tasks:
        systems = found.setdefault(recipe_of(task.config), {})
        systems.update(dict.fromkeys(cell.system for cell in task.cells))
    labels = {name: system.label for name, system in planned.scale.systems.items()}
    return [
        f"Trained alike, {'; '.join(labels[name] for name in systems)}: {text}."
        for text, systems in found.items()
    ]


def recipe_of(config: Config) -> str:
    """What is learnt, by which steps; not the network, the data or the seed."""
    train = config.train
    falling = {"constant": "", "cosine": " falling along a cosine"}[train.schedule]
    warm = f", {train.warmup_steps} steps to warm up" if train.warmup_steps else ""
    known = {True: "every other image, at random", False: "none", None: "as the data declares"}
    flips = known[config.data.flip]
    return (
        f"{_target(config)}; {train.steps:,} steps of {train.batch_size} images, Adam at "
        f"{train.learning_rate:g}{falling}{warm}; averaged weights, decay {train.ema_decay:g}; "
        f"flips: {flips}"
    )


def _target(config: Config) -> str:
    """What the network is to learn."""
    if "diffusion.prediction" in config.keys():  # noqa: SIM118  a method of the configuration
        process = config.diffusion
        words = {"v_prediction": "v", "sample": "the image"}.get(
            process.prediction, process.prediction
        )
        return f"{words} is predicted, T = {process.timesteps}, {process.beta_schedule} betas"
    table = config.method
    parts = [f"method {table['name']}"]
    if "loss" in table:
        parts.append(f"loss {table['loss']['name']}")
    if "latent_size" in table:
        parts.append(f"z of {table['latent_size']} numbers, {table['latent']}")
    if "network" in table:  # a GAN; what is not given is as its paper has it
        for key, words in (("discriminator_rate", "discriminator's rate"), ("betas", "betas")):
            parts.append(f"{words} {table.get(key) or 'as in its paper'}")
    return ", ".join(parts)
