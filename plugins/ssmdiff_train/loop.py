"""The training loop of any method, counted in images.

Devices, mixed precision and DDP are Hugging Face Accelerate's. The draws of a step belong to the
global batch: the number of processes, or a resume, changes nothing but rounding.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing

import torch
from accelerate import Accelerator
from ssmdiff import (
    CheckpointError,
    Config,
    ConfigError,
    DataError,
    OutOfTimeError,
    RunFolder,
    RunInterruptedError,
    SsmdiffError,
    StepRecord,
    build_dataset,
    build_method,
    create,
    data_record,
    event_hooks,
    kernels_used,
    made_otherwise,
    order_digests,
    provenance,
    stream_seed,
    validate,
)
from torch import nn

from ssmdiff_train import faults, init_from, of_diffusion, reports
from ssmdiff_train.augment import changes_of, settled
from ssmdiff_train.callbacks import LossCurve, MetricsFile
from ssmdiff_train.limit import OUT_OF_TIME, TimeLimit
from ssmdiff_train.networks import Networks
from ssmdiff_train.optimizer import learning_rate
from ssmdiff_train.resume import RESUMED, refuse_changes
from ssmdiff_train.signals import StopRequest
from ssmdiff_train.step import Place, TrainingStep
from ssmdiff_train.stream import (
    ReaderDiedError,
    TrainingImage,
    TrainingStream,
    Unread,
    loader,
    reading,
    share_of,
)
from ssmdiff_train.telling import Telling
from ssmdiff_train.watching import Watching

PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


class Trainer:
    """The parts of a run and the loop over them."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        accelerator: Accelerator,
        callbacks: Sequence[object] = (),
        resumed: bool = False,
    ) -> None:
        self.folder, self.accelerator = folder, accelerator
        named = [create("callback", table) for table in config.train.callbacks]
        self.events = event_hooks([MetricsFile(), LossCurve(), *named, *callbacks])
        self.dataset = build_dataset(config)
        self.config = config = settled(config, self.dataset)
        self.made_of = {"data": record} if (record := data_record(self.dataset)) else {}
        # What cannot work is refused now, before anything is written.
        share_of(config.train.batch_size, accelerator.num_processes)
        torch.manual_seed(stream_seed(config.seed, "weights"))
        self.telling = Telling.of(config, self.dataset)
        channels, conditions = self.dataset.channels, self.telling.conditions
        self.method = build_method(config, channels, conditions)
        self.begun = None
        if not resumed:
            self.begun = init_from.begin(config, folder, self.method, channels, conditions)
        doubt = of_diffusion.proven(self.method, config, channels)
        if accelerator.is_main_process and doubt:
            warnings.warn(doubt, stacklevel=2)
        self.watching = Watching(config, self.dataset, self.method, accelerator, self.telling)
        self.networks = Networks(self.method, config, accelerator)
        self.parameters, self.ema = self.networks.parameters, self.networks.ema
        if self.begun:
            self.made_of[init_from.KEY] = dict(self.begun.record)
            self.ema.n_averaged.fill_(1)  # of what it begins with
        self.training_step = TrainingStep(
            config, self.method, self.networks, accelerator, self._fallback
        )
        self.step = self.images_seen = 0
        self.saved_step = self._settled_step = -1
        self.saved_s = time.monotonic()
        self.limit = TimeLimit(config.train.max_hours, 16 * self.parameters)

    @property
    def averaged(self) -> nn.Module:
        """The network that draws, of averaged weights, ready to; on the main process."""
        self._settle()
        return self.ema.module.eval()

    def _settle(self) -> None:
        if self._settled_step != self.step:
            self.method.settle(self.ema.module)
            self._settled_step = self.step

    # Checkpoints

    def save(self) -> None:
        """Write, verify and announce a checkpoint; drop the oldest."""
        if not self.accelerator.is_main_process or self.saved_step == self.step:
            return
        state = {
            "step": self.step,
            "images_seen": self.images_seen,
            "ema_updates": int(self.ema.n_averaged),
            "channels": self.dataset.channels,
            "class_names": list(self.dataset.class_names),
            "conditions": self.telling.conditions.record(),
            "data_fingerprint": self.dataset.fingerprint(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
            "config": self.config.to_dict(),
            "provenance": provenance(self.config)
            | {"kernels": kernels_used(), "orders": order_digests(self.method.plan)}
            | self.made_of,
        }
        start_s = time.monotonic()
        self._settle()
        written = self.folder.save_checkpoint(self.step, self.networks.tensors(), state)
        self.saved_step, self.saved_s = self.step, time.monotonic()
        self.limit.saved(self.saved_s - start_s)
        self.folder.prune(self.config.train.keep_checkpoints)
        self.emit("checkpoint_saved", path=written.path, step=self.step)

    def restore(self, allow_changes: Iterable[str]) -> None:
        """Continue from the newest valid checkpoint.

        Raises:
            ConfigError: The configuration or the data changed in a way that was not allowed.
            CheckpointError: It does not say all that a run goes on from.
        """
        found = self.folder.checkpoint()
        state = found.state()
        lacking = [key for key in RESUMED if key not in state]
        if lacking:
            raise CheckpointError(
                f"{found.path}: its state lacks {', '.join(lacking)}, so a run cannot go on from "
                "it; expected a checkpoint of ssmdiff train"
            )
        prints = (str(state["data_fingerprint"]), self.dataset.fingerprint())
        before = settled(validate(Config, state["config"], ""), self.dataset)
        made = made_otherwise(state, self.config, self.method.plan, "method", "model", "data")
        known = found.conditions(state, self.config.model.class_conditional)
        if known != self.telling.conditions:
            raise ConfigError(
                f"{found.path}: the model is told {known.record()}, and the data set tells "
                f"{self.telling.conditions.record()} now; expected the same names and ranges. Try: "
                "the data that it was trained on, or a new run"
            )
        told = refuse_changes(before, self.config, prints, allow_changes, found.path, made)
        if told and self.accelerator.is_main_process:
            warnings.warn(told, stacklevel=2)
        self.networks.load(found, int(state["ema_updates"]))
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.images_seen = int(state["step"]), int(state["images_seen"])
        self.saved_step = self.step
        if begun := state.get("provenance", {}).get(init_from.KEY):
            self.made_of[init_from.KEY] = begun
        if self.accelerator.is_main_process:
            self.folder.make_folders()
            self.folder.write_config(self.config, self.made_of)

    # The loop

    def run(self, stop: StopRequest) -> None:
        """Train to the last step, saving on the way and at the end."""
        train = self.config.train
        self.emit("run_start", folder=self.folder.path, config=self.config, step=self.step)
        status = "failed"
        try:
            self._steps(stop)
            status = "interrupted" if stop.signal else "finished"
            self.save()
            if status == "finished":
                self.report()
        finally:
            self.emit("run_end", status=status)
        if status == "interrupted":
            text = (
                f"after step {self.step} of {train.steps}; saved. "
                f"Go on with: ssmdiff train --out {self.folder.path} --resume"
            )
            if stop.signal == OUT_OF_TIME:
                raise OutOfTimeError(f"stopped in time for train.max_hours {text}")
            raise RunInterruptedError(f"stopped by signal {stop.signal} {text}", stop.signal)

    def _steps(self, stop: StopRequest) -> None:
        self.networks.train()
        self.watching.look(self)  # what was due when the run was stopped
        self._asked_s = time.perf_counter()
        with closing(self._batches(stop)) as batches:
            for batch in batches:
                if not self._go_on(batch, stop):
                    return

    def _batches(self, stop: StopRequest) -> Generator[TrainingImage]:
        """This process's batches from here to the last step."""
        train, data = self.config.train, self.config.data
        drawn = (self.config.seed, self.method.draws, *changes_of(self.config))
        images = TrainingStream(self.dataset, *drawn, self.telling)
        start, rank = self.images_seen, self.accelerator.process_index
        end = start + (train.steps - self.step) * train.batch_size
        processes = self.accelerator.num_processes
        batches = loader(images, start, end, train.batch_size, rank, processes, data.workers)
        with reading(batches) as numbered:
            while True:
                try:
                    batch = next(numbered, None)
                    if isinstance(batch, Unread):
                        raise faults.unreadable(batch, len(self.dataset), self.config)
                except Exception as error:
                    if isinstance(error, ReaderDiedError) and stop.signal:
                        return  # the signal reached the whole group of processes
                    raise self._rescued(error) from None
                if batch is None:
                    return
                yield batch

    def _rescued(self, error: Exception) -> SsmdiffError:
        """What was met between two steps, once the last of them is saved."""
        if self.step:
            self.save()
            kept = f"step {self.step} is saved, go on with: ssmdiff train --out {self.folder.path} "
            kept += "--resume"
            if isinstance(error, DataError) and not isinstance(error, ReaderDiedError):
                kept += " --allow-config-change data.fingerprint, once the images are mended"
        else:
            kept = "no step was done yet"
        if not isinstance(error, SsmdiffError):
            return faults.explain(error, self.step + 1, self.config, kept)
        return type(error)(f"step {self.step + 1}: {error}; {kept}")

    def _go_on(self, batch: TrainingImage, stop: StopRequest) -> bool:
        """A step and what is due after it; False when a signal or the clock says stop."""
        train, start_s = self.config.train, time.perf_counter()
        rate = learning_rate(train, self.step)
        place = Place(self.step, self.images_seen, rate)
        try:
            done = self.training_step(batch, place, max(stop.signal, self.limit.signal()))
        except SsmdiffError:
            raise
        except Exception as error:
            raise faults.explain(error, self.step + 1, self.config, self._fallback()) from error
        self.step += 1
        self.images_seen += train.batch_size
        now_s = time.perf_counter()
        speed = train.batch_size / (now_s - self._asked_s)
        record = StepRecord(
            self.step, self.images_seen, done.loss, rate, done.norm, speed, done.figures
        )
        self.emit("step_end", record=record)
        if done.signal:
            stop.signal = done.signal
            return False
        self._at_intervals(done.figures)
        self._asked_s = time.perf_counter()
        self.limit.stepped(now_s - start_s, self._asked_s - now_s)
        return True

    def _fallback(self) -> str:
        return faults.newest_checkpoint_clause(self.folder.checkpoint_paths())

    def _at_intervals(self, figures: Mapping[str, float]) -> None:
        train = self.config.train
        late = time.monotonic() - self.saved_s > train.checkpoint_minutes * 60
        if self.step % train.checkpoint_every == 0 or late:
            self.save()
        due = train.sample_every and self.step % train.sample_every == 0
        if due and self.step < train.steps:
            self.draw_samples()
        self.watching.look(self, figures)

    # Reports

    def report(self) -> None:
        """At the end: a grid of samples, and the variational bound."""
        if not self.accelerator.is_main_process:
            return
        parts = (self.method, self.averaged, self.config, self.dataset, self.telling)
        bits = of_diffusion.bits_per_dim(*parts)
        if bits is not None:
            self.emit("reported", name="bits_per_dim", value=bits, step=self.step)
        self.draw_samples()

    def draw_samples(self) -> None:
        """A grid from the averaged weights, from the same noise every time."""
        if not self.accelerator.is_main_process:
            return
        parts = (self.method, self.config, self.dataset, self.telling)
        path = reports.write_samples(self.folder, self.step, self.averaged, *parts)
        if path:
            self.emit("samples_made", path=path, step=self.step)

    def emit(self, event: str, **details: object) -> None:
        """Call a hook of all listeners; only the main process tells."""
        if not self.accelerator.is_main_process:
            return
        try:
            getattr(self.events, f"ssmdiff_{event}")(**details)
        except SsmdiffError:
            raise
        except Exception as error:
            raise self.explained(error) from error

    def explained(self, error: Exception) -> SsmdiffError:
        """What was raised after a step, and which checkpoint there is."""
        return faults.explain(error, self.step, self.config, self._fallback())
