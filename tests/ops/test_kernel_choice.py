"""Which kernel runs: the one that was set, or the fastest that can; one warning if none can."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint

import pytest
import ssmdiff
import torch
from ssmdiff.errors import ConfigError, KernelUnavailableError, PluginBrokenError
from ssmdiff.ops import (
    ScanInputs,
    kernel_for,
    kernels_used,
    load_kernel,
    scan_op,
    set_kernel,
    use_kernel,
)
from ssmdiff.ops.reference import TorchKernel
from ssmdiff.registry.component import Component
from ssmdiff.registry.registry import Registry

CPU = torch.device("cpu")


class Able(TorchKernel):
    """The reference under another name."""

    name = "able"
    preference = 10


class Faster(Able):
    name = "faster"
    preference = 20


class OnlyBfloat16(Able):
    name = "only-bfloat16"

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None if dtype == torch.bfloat16 else f"it does not take {dtype}"


class Unable(Able):
    name = "unable"

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return f"there is no such chip for {device}"


class Explodes(Able):
    def __init__(self) -> None:
        raise OSError("driver too old")


def forget() -> None:
    """Empty what the module remembers of kernels."""
    for remembered in (scan_op._resolve, scan_op.load_kernel, scan_op._warn_slow):
        remembered.cache_clear()
    scan_op._used.clear()


class Fails(Able):
    name = "fails"
    preference = 90

    def forward(self, inputs: ScanInputs) -> torch.Tensor:
        raise OSError("the driver is another one\nand more")


Offer = Callable[..., None]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """``offer(able=Able)``: a registry with these kernels alone, and a process that ran none."""

    def install(**kernels: type) -> None:
        module = types.ModuleType("ssmdiff_fake_kernels")

        @ssmdiff.hookimpl
        def ssmdiff_kernels() -> list[Component]:
            return [Component(n.replace("_", "-"), k, "a kernel") for n, k in kernels.items()]

        module.ssmdiff_kernels = ssmdiff_kernels
        monkeypatch.setitem(sys.modules, module.__name__, module)
        found = Registry(points=[EntryPoint("fake", module.__name__, "ssmdiff")])
        monkeypatch.setattr(scan_op, "registry", lambda: found)
        forget()

    used = set(scan_op._used)
    monkeypatch.setattr(scan_op, "_chosen", scan_op.AUTO)
    forget()
    yield install
    monkeypatch.undo()
    forget()
    scan_op._used.update(used)


def chosen(dtype: torch.dtype = torch.float32, length: int = 4) -> str:
    return kernel_for(CPU, dtype, length).name


def scan(length: int = 4) -> torch.Tensor:
    """One call of the op on a line of tokens."""
    u, B = torch.randn(1, length, 2), torch.randn(1, 1, length, 3)
    order = torch.arange(length, dtype=torch.int32)[None]
    return ssmdiff.selective_scan(u, u[:, None], -torch.ones(1, 2, 3), B, B, order)


def test_a_kernel_that_was_set_runs(offer) -> None:
    offer(able=Able)
    set_kernel("able")
    assert chosen() == "able"


def test_use_kernel_restores_what_was_set_before(offer) -> None:
    offer(able=Able, faster=Faster)
    set_kernel("able")
    with use_kernel("faster"):
        assert chosen() == "faster"
        with use_kernel("able"):
            assert chosen() == "able"
        assert chosen() == "faster"
    assert chosen() == "able"


def test_use_kernel_restores_after_an_error(offer) -> None:
    offer(able=Able, faster=Faster)
    set_kernel("able")
    with pytest.raises(ZeroDivisionError), use_kernel("faster"):
        1 / 0
    assert chosen() == "able"


@pytest.mark.parametrize("name", ["abel", "ABLE"])
def test_an_unknown_kernel_is_answered_with_the_nearest(offer, name: str) -> None:
    offer(able=Able)
    with pytest.raises(ConfigError, match=f"no kernel named '{name}'"):
        set_kernel(name)
    with pytest.raises(ConfigError, match="did you mean 'able'"):
        set_kernel("abel")


def test_a_choice_that_fails_leaves_the_one_before(offer) -> None:
    offer(able=Able)
    set_kernel("able")
    with pytest.raises(ConfigError), use_kernel("nothing"):
        pass
    assert chosen() == "able"


def test_a_kernel_asked_for_by_name_that_cannot_run_is_an_error(offer) -> None:
    offer(able=Able, unable=Unable)
    with (
        use_kernel("unable"),
        pytest.raises(KernelUnavailableError, match="'unable' cannot run here: there is no such"),
    ):
        scan()


def test_a_kernel_asked_for_by_name_may_run_for_some_dtypes_only(offer) -> None:
    offer(only_bfloat16=OnlyBfloat16)
    with use_kernel("only-bfloat16"):
        assert chosen(torch.bfloat16) == "only-bfloat16"
        with pytest.raises(KernelUnavailableError, match=r"it does not take torch\.float32"):
            chosen(torch.float32)


def test_a_kernel_that_cannot_be_built_is_a_broken_plugin(offer) -> None:
    offer(explodes=Explodes)
    with pytest.raises(PluginBrokenError, match=r"'explodes'.*driver too old"):
        set_kernel("explodes")


def test_a_kernel_is_built_once(offer) -> None:
    offer(able=Able)
    assert load_kernel("able") is load_kernel("able")


@pytest.mark.parametrize("names", [("able", "faster"), ("zebra", "aardvark")])
def test_auto_takes_the_kernel_that_prefers_itself_most(offer, names: tuple[str, str]) -> None:
    offer(**dict(zip(names, (Able, Faster), strict=True)))
    assert chosen() == "faster"


def test_a_kernel_without_a_preference_runs_by_name_alone(offer) -> None:
    class Modest(Able):
        name = "modest"
        preference = None

    offer(modest=Modest)
    assert chosen() == "torch"
    with use_kernel("modest"):
        assert chosen() == "modest"


@pytest.mark.needs_plugin("ssmdiff_kernels")
def test_a_kernel_of_a_stranger_is_preferred_over_ours_by_its_own_word(offer) -> None:
    from ssmdiff_kernels.numba_scan.kernel import NumbaKernel

    class Stranger(Able):
        name = "stranger"
        preference = NumbaKernel.preference + 1

    offer(numba=NumbaKernel, stranger=Stranger)
    assert chosen() == "stranger"


def test_auto_takes_a_kernel_that_ssmdiff_does_not_know(offer) -> None:
    offer(able=Able)
    assert chosen() == "able"


@pytest.mark.parametrize("kernel", [Unable, Explodes], ids=["unavailable", "broken"])
def test_auto_passes_over_what_cannot_run(offer, kernel: type) -> None:
    class First(kernel):
        preference = 30

    offer(first=First, able=Able)
    assert chosen() == "able"


def test_auto_chooses_for_each_dtype(offer) -> None:
    offer(only_bfloat16=OnlyBfloat16)
    assert chosen(torch.bfloat16) == "only-bfloat16"
    assert chosen(torch.float32) == "torch"


def test_auto_falls_back_to_the_reference_where_no_kernel_is_installed(offer) -> None:
    offer()
    assert chosen() == "torch"


def test_the_fall_back_warns_exactly_once_and_says_why(offer) -> None:
    offer(unable=Unable, explodes=Explodes)
    with pytest.warns(UserWarning, match="slow reference kernel 'torch'") as caught:
        [scan(scan_op.LONG + 1) for _ in range(3)]
    (warning,) = caught
    assert "unable: there is no such chip for cpu" in str(warning.message)
    assert "explodes: " in str(warning.message)
    assert "driver too old" in str(warning.message)


@pytest.mark.parametrize(
    ("kernel", "dtype", "length"),
    [
        ("auto", torch.float32, scan_op.LONG),  # short: nobody waits for it
        ("auto", torch.float64, scan_op.LONG + 1),  # float64 is asked of the reference
        ("torch", torch.float32, scan_op.LONG + 1),  # asked for by name
    ],
)
def test_the_reference_does_not_warn_where_it_is_wanted(offer, kernel, dtype, length) -> None:
    offer(unable=Unable, torch=TorchKernel)
    with warnings.catch_warnings(), use_kernel(kernel):
        warnings.simplefilter("error")
        assert chosen(dtype, length) == "torch"


def test_kernels_that_ran_are_recorded(offer) -> None:
    offer(able=Able, faster=Faster)
    assert kernels_used() == []
    for name in ("faster", "able", "faster"):
        with use_kernel(name):
            scan()
    assert kernels_used() == ["able", "faster"]


def test_a_kernel_that_was_only_chosen_is_not_recorded(offer) -> None:
    offer(able=Able)
    set_kernel("able")
    assert kernels_used() == []


def test_auto_passes_over_what_fails_when_it_is_tried(offer) -> None:
    offer(fails=Fails, able=Able)
    assert scan().isfinite().all()
    assert kernels_used() == ["able"]


def test_what_fails_is_named_in_the_one_warning(offer) -> None:
    offer(fails=Fails)
    with pytest.warns(UserWarning, match="slow reference") as caught:
        [scan(scan_op.LONG + 1) for _ in range(2)]
    (warning,) = caught
    assert "fails: it fails on one token: OSError: the driver is another one)" in str(
        warning.message
    )


def test_a_kernel_asked_for_by_name_that_fails_is_an_error(offer) -> None:
    offer(fails=Fails)
    with (
        use_kernel("fails"),
        pytest.raises(KernelUnavailableError, match="'fails' cannot run here: it fails on one"),
    ):
        scan()


def test_a_kernel_given_as_an_object_fails_in_its_own_words(offer) -> None:
    offer()
    with use_kernel(Fails()), pytest.raises(OSError, match="the driver is another one"):
        scan()


def test_a_kernel_may_refuse_the_call_that_it_is_tried_with(offer) -> None:
    class Picky(Able):
        def forward(self, inputs: ScanInputs) -> torch.Tensor:
            if inputs.discretization != "zoh":
                raise KernelUnavailableError("it has zoh alone")
            return super().forward(inputs)

    offer(picky=Picky)
    assert chosen() == "able"


def test_a_fake_tensor_does_not_say_that_a_kernel_fails(offer) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Reads(Able):
        def forward(self, inputs: ScanInputs) -> torch.Tensor:
            inputs.u.numpy()
            return super().forward(inputs)

    offer(reads=Reads)
    with FakeTensorMode():
        u, B = torch.randn(1, 4, 2, requires_grad=True), torch.randn(1, 1, 4, 3)
        order = torch.zeros(1, 4, dtype=torch.int32)
        ssmdiff.selective_scan(u, u[:, None], -torch.ones(1, 2, 3), B, B, order)
    assert chosen() == "able"


def test_the_reference_is_registered() -> None:
    assert isinstance(load_kernel("torch"), TorchKernel)
