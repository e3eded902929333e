"""What cannot work is refused as a sentence before anything is written or trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import ssmdiff
import torch
from ssmdiff import ConfigError, hookimpl, merge, resolve
from ssmdiff.errors import PluginBrokenError, PluginError
from ssmdiff_train.job import train
from ssmdiff_train.proof import prove_sampling
from tiny_config import TINY


def settings(scheduler: Any = "ddim", steps: int = 4, **diffusion: Any) -> dict[str, Any]:
    sample = {"scheduler": scheduler, "steps": steps, "count": 1}
    return merge(TINY, {"sample": sample, "diffusion": diffusion, "data": {"image_size": 8},
                        "train": {"steps": 1, "batch_size": 2, "callbacks": []}})  # fmt: skip


def library(name: str, **options: Any) -> dict[str, Any]:
    return {"name": "diffusers", "scheduler": name, "options": options}


SHORT = {"timesteps": 10}


@pytest.mark.parametrize(
    ("scheduler", "steps", "diffusion", "sentence"),
    [
        ("ddim", 11, SHORT, r"sample\.steps = 11: steps is 11; expected .* 1 to 10"),
        ("heun", 11, SHORT, r"sample\.scheduler 'heun' in sample\.steps = 11: "),
        ({"name": "euler", "karras": True}, 11, SHORT, r"sample\.steps = 11: "),
        ("ddim", 2, {"beta_start": 0.9, "beta_end": 0.95, "timesteps": 1000}, "alpha_bar is"),
        (library("DPMSolverMultistepScheduler"), 50, SHORT, "IndexError"),
        (library("DPMSolverMultistepScheduler", use_karras_sigmas=True), 7,
         {"beta_schedule": "cosine", "timesteps": 1000}, "IndexError"),
        (library("DPMSolverMultistepScheduler", algorithm_type="sdee"), 4, {}, "sdee"),
        (library("DPMSolverMultistepScheduler", solver_order="two"), 4, {}, "TypeError"),
        (library("DDPMScheduler", variance_type="learned"), 4, {}, "TypeError"),
        (library("EulerAncestralDiscreteScheduler"), 4, {"prediction": "sample"}, "_type"),
        (library("PNDMScheduler"), 7, {"prediction": "sample"}, "_type"),
        (library("KDPM2DiscreteScheduler"), 50, SHORT, "not finite; expected"),
    ],
)  # fmt: skip
def test_sampling_that_cannot_work_is_refused_before_training(
    tmp_path: Path, scheduler: Any, steps: int, diffusion: dict[str, Any], sentence: str
) -> None:
    told = settings(scheduler, steps, **diffusion)
    with pytest.raises(ConfigError, match=sentence) as refused:
        train(resolve(told), tmp_path / "run")
    assert str(refused.value).startswith("sample.scheduler ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "scheduler",
    [*("ddpm", "ddim", "dpmpp", "unipc", "euler", "heun"),
     *({"name": name, "karras": True} for name in ("dpmpp", "unipc", "euler", "heun")),
     {"name": "dpmpp", "order": 3}, library("DPMSolverMultistepScheduler"),
     library("DDIMScheduler", rescale_betas_zero_snr=True)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("beta_schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 30])
def test_sampling_that_can_work_passes(scheduler: Any, beta_schedule: str, steps: int) -> None:
    """And moves no random state: a run has the bits that it has without the trial."""
    config = resolve(settings(scheduler, steps, beta_schedule=beta_schedule, timesteps=100))
    before = torch.random.get_rng_state()
    diffusion = ssmdiff.build_diffusion(config)
    prove_sampling(config, lambda _: ssmdiff.build_scheduler(config, diffusion), 1)
    assert torch.equal(torch.random.get_rng_state(), before)


class Stranger:
    """A scheduler that fails in its last step, or gives another shape or NaN."""

    random, initial_scale = False, 1.0

    def __init__(self, betas: Any, prediction_type: str, fault: str = "raises") -> None:
        self.fault = fault

    def set_timesteps(self, steps: int) -> None:
        self.timesteps = torch.arange(steps).numpy()[::-1]

    def scaled(self, x: Any, i: int) -> Any:
        return x

    def step(self, output: Any, i: int, x: Any, noise: Any) -> Any:
        if i + 1 < len(self.timesteps):
            return x
        if self.fault == "raises":
            raise LookupError("no such level")
        return x[:, :, :1] if self.fault == "shape" else x * float("nan")


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ("raises", PluginBrokenError, "raised LookupError: no such level"),
        ("shape", ConfigError, r"ended in \(1, 1, 1, 2\) values"),
        ("nan", ConfigError, "not finite"),
    ],
)
def test_a_scheduler_of_a_stranger_is_tried_to_its_last_step(
    install, fresh_registry, tmp_path, fault, error, sentence
) -> None:
    install("ssmdiff-odd", f"""
        import sys, ssmdiff
        @ssmdiff.hookimpl
        def ssmdiff_schedulers():
            stranger = sys.modules[{__name__!r}].Stranger
            yield ssmdiff.Component("odd", stranger, "fails in its last step")
        """)  # fmt: skip
    with pytest.raises(error, match=sentence):
        train(resolve(settings({"name": "odd", "fault": fault})), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_processes_cannot_share_is_refused_before_a_run_is_replaced(
    tmp_path, monkeypatch
) -> None:
    folder = ssmdiff.RunFolder(tmp_path / "run")
    folder.create(resolve(settings()))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(ConfigError, match="cannot be split over 3; the nearest that can is 3"):
        train(resolve(settings()), tmp_path / "run", overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


@pytest.mark.parametrize("name", ["torch.utils.tensorboard", "matplotlib.figure"])
def test_a_package_that_a_listener_needs_is_missed_at_once(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    told = merge(settings(), {"train": {"callbacks": ["tensorboard"]}})
    with pytest.raises((PluginError, ModuleNotFoundError), match=name.rpartition(".")[2]):
        train(resolve(told), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_listener_raises_is_a_sentence_that_names_the_step(tmp_path) -> None:
    class Listener:
        @hookimpl
        def ssmdiff_step_end(self, record: Any) -> None:
            raise LookupError("no such place")

    with pytest.raises(PluginBrokenError, match=r"step 1: .* raised LookupError: no such place"):
        train(resolve(settings()), tmp_path / "run", callbacks=[Listener()])


def test_images_of_two_channels_train_to_the_end(tmp_path, install, fresh_registry) -> None:
    """A PNG cannot show them, which was told when the run was over."""
    install("ssmdiff-two", """
        import torch, ssmdiff
        class Two:
            channels, class_names = 2, ()
            def __init__(self, image_size: tuple[int, ...]):
                self.image_size = image_size
            def __len__(self):
                return 4
            def __getitem__(self, i):
                return ssmdiff.ImageItem(torch.full((2, *self.image_size), i / 4), 0)
            def fingerprint(self):
                return "two"
        @ssmdiff.hookimpl
        def ssmdiff_datasets():
            yield ssmdiff.Component("two", Two, "two channels")
        """)  # fmt: skip
    told = merge(settings(), {"data": {"dataset": "two"}, "train": {"bound_images": 2}})
    folder = train(resolve(told), tmp_path / "run")
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert "bits_per_dim" in lines[-1]
    assert ssmdiff.load_run(folder.path).sample(1).shape == (1, 2, 8, 8)
    assert not list(folder.samples.iterdir())


def test_options_of_an_exporter_are_refused_before_the_run_is_read(tmp_path) -> None:
    from ssmdiff_cli.main import app
    from typer.testing import CliRunner

    for more in (["--set", "body=chunkd"], ["--set", "bdy=scan"], ["--body", "scan", "--set",
                 "body=chunked"], ["--to", "pt2", "--body", "scan"]):  # fmt: skip
        words = ["export", str(tmp_path / "none"), "--out", str(tmp_path / "a"), *more]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, result.output
        assert "body" in result.output or "bdy" in result.output
