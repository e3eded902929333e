"""Listeners by their bare names, and a near match wherever a name is typed."""

from __future__ import annotations

import shlex

import pytest
import ssmdiff
from ssmdiff_cli.main import app
from typer.testing import CliRunner


@pytest.mark.parametrize(
    "told", [["tensorboard"], [{"name": "tensorboard"}], ("tensorboard",)], ids=str
)
def test_a_listener_is_a_name_or_a_table(told) -> None:
    config = ssmdiff.resolve({"train": {"callbacks": told}})
    assert config.train.callbacks == ({"name": "tensorboard"},)
    assert ssmdiff.resolve(config) == config


def test_a_listener_by_its_name_from_the_command_line() -> None:
    config = ssmdiff.resolve_flags(sets=['train.callbacks=["tensorboard"]'])
    assert config.train.callbacks == ({"name": "tensorboard"},)
    table = '{name="tensorboard"}'
    assert ssmdiff.resolve_flags(sets=[f"train.callbacks=[{table}]"]) == config


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("""train --set 'train.callbacks=["tensorbord"]'""", "tensorboard"),
        ("train --data phantm", "phantom"),
        ("plugins check hilbert --kind scn", "scan"),
        ("plugins check conv --kind blok", "block"),
        ("plugins new mine --kind blok", "block"),
        ("train --scan hilbrt", "hilbert"),
        ("train --kernel nunba", "numba"),
        ("train --precision fp23", "fp32"),
        ("train --set train.schedule=cosin", "cosine"),
        ("train --set model.block=mamba --set model.block.discretization=zho", "zoh"),
        ("sample run --scheduler dim", "ddim"),
        ("train --preset smal", "small"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_near_one(line, near, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == 2, result.output
    assert f"'{near}'" in result.output, result.output
