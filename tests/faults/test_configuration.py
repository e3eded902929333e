"""Rows F1, F2 and F4 of the fault catalogue, over every key and every scan; F3 is tests/cli's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import ssmdiff
from ssmdiff import ConfigError, merge
from ssmdiff.registry.registry import registry

OF_OTHER_TESTS = ("callbacks", "evaluate", "init_from", "init_checkpoint")
PLAIN = ssmdiff.resolve({"train": {"micro_batch_size": 2}, "diffusion": {"min_snr_gamma": 5.0}})
LEAVES = {
    "data.flip": True,  # none by default, as are the next
    **{f"data.augment.{key}": 0.25 for key, _ in PLAIN.data.augment},
    "data.workers": 0,
    **{f"diffusion.{key}": value for key, value in PLAIN.diffusion},
    **{f"train.{key}": value for key, value in PLAIN.train if key not in OF_OTHER_TESTS},
    "train.evaluate.n": 256,
    "train.evaluate.batch_size": 32,
    "train.max_hours": 1.5,  # none by default, and of no type then
    "model.class_conditional": False,
    "model.block.state": 8,
    "model.backbone.dropout": 0.0,
    "data.dataset.length": 4096,
    "sample.steps": 50,
    "sample.count": 16,
    "sample.scheduler.clip_sample": True,
    "seed": 0,
}
WRONG: dict[type, list[Any]] = {
    bool: [1, 0, "true", None, []],
    int: [True, "10", 1.5, 10.0, math.nan, math.inf, float("1e400"), -1, 2**64, [], {}],
    float: [True, "0.5", math.nan, math.inf, -math.inf, float("1e400"), -1.0, [1.0]],
    str: [1, True, "", "nonsense", []],
}
UNBOUNDED = {"train.steps", "train.batch_size", "train.micro_batch_size", "train.warmup_steps",
             "train.checkpoint_every", "train.sample_every", "train.keep_checkpoints",
             "train.bound_images", "train.held_out_every", "train.held_out_images",
             "train.evaluate_every", "train.evaluate.n", "train.evaluate.batch_size",
             "model.block.state", "data.dataset.length",
             "sample.steps"}  # fmt: skip


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("key", LEAVES)
def test_f2_a_value_of_another_type_or_range_names_its_key(key: str) -> None:
    for value in WRONG[type(LEAVES[key])]:
        if (value == 2**64 and key in UNBOUNDED) or (value is None and key == "data.flip"):
            continue
        with pytest.raises(ConfigError) as refused:
            ssmdiff.resolve(nested(key, value))
        said = str(refused.value)
        named = key in said or (key == "train.kernel" and "kernel" in said)
        assert named, f"{key} = {value!r}: {said}"


def test_f1_a_key_in_another_section_or_case_is_refused_by_its_path() -> None:
    for key in LEAVES:
        *sections, last = key.split(".")
        for wrong in (".".join([*sections, f"{last}s"]), ".".join([*sections, last.upper()])):
            with pytest.raises(ConfigError) as refused:
                ssmdiff.resolve(nested(wrong, LEAVES[key]))
            assert (
                f"{wrong}: unknown key; did you mean '" in str(refused.value)
                or last.upper() in (wrong.rpartition(".")[2])
            )
            assert f"{wrong}: unknown key" in str(refused.value)
        with pytest.raises(ConfigError, match="unknown key"):
            ssmdiff.resolve(nested(f"sample.{last}_", LEAVES[key]))


QUICK = ("regenerate", "hilbert", "tri")


@pytest.mark.parametrize(
    "scan",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in registry().names("scan")
    ],
)
def test_f4_a_scan_and_a_size_fit_or_are_a_sentence(scan: str) -> None:
    """Of the product, nothing but a ConfigError that says which sizes would do."""
    fitted = 0
    for backbone in ("vmddpm", "isotropic"):
        small = {"vmddpm": {"channels": 4, "widths": [1]}, "isotropic": {"channels": 8, "depth": 1}}
        for size in ([8, 8], [8, 12], [7, 5], [2, 2], [1, 9]):
            told = merge({"data": {"image_size": size}}, {"model": {"scan": scan, "block": "mss"}})
            told["model"]["backbone"] = {"name": backbone, **small[backbone]}
            config = ssmdiff.resolve(told)
            said = refusal(config)
            fitted += not said
            assert not said or any(char.isdigit() for char in said), said
    # Of the grids above, `tri` has none: it is of volumes.
    assert fitted or scan == "tri"


def refusal(config: ssmdiff.Config) -> str:
    try:
        ssmdiff.build_backbone(config, 1)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [7, [], True])
def test_a_method_that_is_no_name_is_told(name: Any) -> None:
    with pytest.raises(ConfigError, match="expected the name of a method"):
        ssmdiff.resolve({"method": {"name": name}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": {"conditions": ["angle"], "class_conditional": True}},
            "model.class_conditional is true and model.conditions have no 'label'; give "
            "model.conditions alone",
        ),
        (
            {"diffusion": {"beta_start": 0.5, "beta_end": 0.1}},
            "diffusion.beta_end is 0.1, below diffusion.beta_start, 0.5",
        ),
    ],
)
def test_keys_that_do_not_fit_each_other_are_one_sentence(changes: Any, said: str) -> None:
    """The whole configuration stood before it."""
    with pytest.raises(ConfigError) as refused:
        ssmdiff.resolve(changes)
    assert str(refused.value) == said
