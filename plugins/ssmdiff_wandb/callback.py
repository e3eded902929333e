"""Sends a run's metrics and sample grids to Weights & Biases."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import wandb
from ssmdiff import Config, StepRecord, hookimpl


class WandbCallback:
    """``--set 'train.callbacks=[{name="wandb", project="heads"}]'``; needs ``ssmdiff[wandb]``.

    What is sent: the configuration (with the data folder's path), metrics and sample grids; never
    the images trained on, the environment or the code. A resumed run goes on under the same id.

    Args:
        project: The project; wandb's own default if empty.
        mode: ``offline`` keeps everything in the run's folder, for ``wandb sync``.
    """

    offline_options: ClassVar = {"mode": "offline"}

    def __init__(
        self, project: str = "", mode: Literal["online", "offline", "disabled"] = "online"
    ) -> None:
        self.project, self.mode = project, mode

    @hookimpl
    def ssmdiff_run_start(self, folder: Path, config: Config, step: int) -> None:
        marker = folder / "wandb-id"
        if step == 0 or not marker.exists():
            marker.write_text(secrets.token_hex(4))
        self._run: Any = wandb.init(
            project=self.project or None,
            mode=self.mode,
            dir=folder,
            id=marker.read_text(),
            resume="allow",
            config=config.to_dict(),
            settings=wandb.Settings(
                disable_code=True, disable_git=True, console="off", silent=True
            ),
        )

    @hookimpl
    def ssmdiff_step_end(self, record: StepRecord) -> None:
        self._run.log({f"train/{k}": v for k, v in asdict(record).items()}, step=record.step)

    @hookimpl
    def ssmdiff_samples_made(self, path: Path, step: int) -> None:
        self._run.log({"samples": wandb.Image(str(path))}, step=step)

    @hookimpl
    def ssmdiff_reported(self, name: str, value: float, step: int) -> None:
        self._run.log({f"report/{name}": value}, step=step)

    @hookimpl
    def ssmdiff_run_end(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)
