"""Whatever the patients, shares and lists: nobody is in two splits and nobody is lost."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ssmdiff import ConfigError, DataError
from ssmdiff_data.planning import split_of
from ssmdiff_data.recipe import Recipe
from ssmdiff_data.splitting import (
    by_lists,
    by_shares,
    parse_shares,
    pseudonym,
    refuse_leaks,
)

PEOPLE = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40)


def sides(patients: list[str], splits: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for patient, split in zip(patients, splits, strict=True):
        found.setdefault(patient, set()).add(split)
    return found


@given(PEOPLE, st.floats(0.01, 0.45), st.floats(0.01, 0.45), st.integers(0, 99), st.randoms())
def test_shares_keep_patients_apart(patients, val, test, seed, random) -> None:
    names = [f"{i}.vol" for i in range(len(patients))]
    recipe = Recipe(shares={"val": val, "test": test}, seed=seed)
    splits = split_of(names, patients, recipe)
    assert all(len(found) == 1 for found in sides(patients, splits).values())
    assert "train" in splits
    order = list(range(len(patients)))
    random.shuffle(order)
    again = split_of(names, [patients[i] for i in order], recipe)
    assert [again[order.index(i)] for i in range(len(patients))] == splits, "whatever the order"
    people = set(patients)
    for split, share in (("val", val), ("test", test)):
        count = len({p for p, s in zip(patients, splits, strict=True) if s == split})
        assert count <= max(1, round(share * len(people)))


@given(PEOPLE, st.data())
def test_lists_keep_patients_apart_or_are_refused(patients, data) -> None:
    names = [f"file {i}" for i in range(len(patients))]
    choice = st.sampled_from(["train", "val", "test", ""])
    wanted = [data.draw(choice) for _ in names]
    lists = {
        split: [name for name, w in zip(names, wanted, strict=True) if w == split]
        for split in ("train", "val", "test")
        if split in wanted
    }
    rest = "" if "train" in lists else "train"
    expected = [w or rest for w in wanted]
    leaks = any(len(found) > 1 for found in sides(patients, expected).values())
    if leaks:
        with pytest.raises(DataError, match="two splits"):
            by_lists(names, patients, lists)
    else:
        assert by_lists(names, patients, lists) == expected


def test_shares_are_of_patients_and_differ_by_seed() -> None:
    patients = [f"p{i}" for i in range(100)]
    found = [by_shares(patients, {"val": 0.1, "test": 0.2}, seed) for seed in (0, 1)]
    for one in found:
        counts = [list(one.values()).count(split) for split in ("train", "val", "test")]
        assert counts == [70, 10, 20]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "text", ["0.1", "test=1", "test=0", "test=x", "val=0.5,test=0.5", "a b=0.1"]
)
def test_shares_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--split"):
        parse_shares(text)


def test_shares_as_typed() -> None:
    assert parse_shares("train=0.8,val=0.1,test=0.1") == {"val": 0.1, "test": 0.1}
    with pytest.raises(ConfigError, match="add up"):
        parse_shares("train=0.5,test=0.1")


def test_a_leak_names_the_patient() -> None:
    with pytest.raises(
        DataError, match="1 patients would be in two splits: 'ann' in test and train"
    ):
        refuse_leaks(["ann", "bob", "ann"], ["train", "train", "test"])


def test_a_pseudonym_is_an_hmac_of_the_salt() -> None:
    expected = hmac.new(b"salt" * 4, b"ann", hashlib.sha256).hexdigest()
    assert expected.startswith(pseudonym("ann", b"salt" * 4))
    assert len(pseudonym("ann", b"salt" * 4)) == 20
    assert pseudonym("ann", b"pepper" * 4) != pseudonym("ann", b"salt" * 4)
