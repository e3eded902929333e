"""Why what needs other patients is left out."""

from __future__ import annotations

from types import SimpleNamespace

from ssmdiff_evaluate.evaluation import NO_HELD_OUT, no_held_out


def test_data_of_one_patient_is_told_apart_from_data_that_holds_none_out() -> None:
    assert "one patient alone" in no_held_out(SimpleNamespace(groups=["a", "a"]))
    assert no_held_out(SimpleNamespace(groups=["a", "b"])) == NO_HELD_OUT
    assert no_held_out(SimpleNamespace(groups=None)) == NO_HELD_OUT
    assert "ssmdiff data prepare" in NO_HELD_OUT
