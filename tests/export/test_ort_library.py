"""The custom ops of ONNX Runtime against the float64 reference, one direction at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ssmdiff.ops.kernels import ScanInputs
from ssmdiff.ops.reference import TorchKernel
from ssmdiff_export.ort_library import build

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

Feeds = dict[str, np.ndarray]
OPS = ("SelectiveScan", "SelectiveScanZoh")
RANKS = {"u": 3, "delta": 4, "A": 3, "B": 4, "C": 4, "order": 2}
DTYPES = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.float16): onnx.TensorProto.FLOAT16,
    np.dtype(np.float64): onnx.TensorProto.DOUBLE,
    np.dtype(np.int32): onnx.TensorProto.INT32,
    np.dtype(np.int64): onnx.TensorProto.INT64,
}


class Shape(NamedTuple):
    batch: int
    directions: int
    length: int
    channels: int
    states: int


SHAPES = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 4, 7, 5, 3),
    Shape(1, 8, 100, 16, 16),
    Shape(3, 2, 7, 17, 64),
    Shape(1, 3, 100, 33, 3),
    Shape(2, 5, 1, 33, 16),
    Shape(1, 2, 7, 16, 1),
]


def make_inputs(shape: Shape, seed: int = 0, restarts: float = 0.0) -> Feeds:
    """Random float32 inputs; ``restarts`` is the share of sign-coded entries of the order."""
    batch, directions, length, channels, states = shape
    rng = np.random.default_rng(seed)

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    order = np.stack([rng.permutation(length) for _ in range(directions)]).astype(np.int32)
    order = np.where(rng.random(order.shape) < restarts, -1 - order, order)
    return {
        "u": normal(batch, length, channels),
        "delta": np.exp(rng.uniform(-5, 1, (batch, directions, length, channels))).astype("f"),
        "A": -np.exp(rng.uniform(-3, 2, (directions, channels, states))).astype("f"),
        "B": normal(batch, directions, length, states),
        "C": normal(batch, directions, length, states),
        "order": order,
    }


def reference(feeds: Feeds, op: str = "SelectiveScan") -> np.ndarray:
    """y (B, K, L, D) in float64."""
    values = {name: torch.from_numpy(value) for name, value in feeds.items()}
    order = values.pop("order")
    u, delta, A, B, C = (values[name].double() for name in ("u", "delta", "A", "B", "C"))
    outputs = []
    for k in range(len(order)):
        one = slice(k, k + 1)
        inputs = ScanInputs(
            u=u,
            delta=delta[:, one],
            A=A[one],
            B=B[:, one],
            C=C[:, one],
            order=order[one],
            delta_softplus=False,
            discretization="zoh" if op == "SelectiveScanZoh" else "euler",
        )
        outputs.append(TorchKernel().forward(inputs))
    return torch.stack(outputs, 1).numpy()


def make_model(
    feeds: Feeds, op: str = "SelectiveScan", within: int | None = None, functions: Any = ()
) -> bytes:
    """A model of one node; with ``within``, u, B, C and y are cast to that type around the node."""
    helper = onnx.helper
    inputs = [
        helper.make_tensor_value_info(name, DTYPES[value.dtype], None)
        for name, value in feeds.items()
    ]
    names, nodes = {name: name for name in feeds}, []
    out = onnx.TensorProto.FLOAT if within else DTYPES[feeds["u"].dtype]
    for name in ("u", "B", "C") if within else ():
        names[name] = f"{name}_cast"
        nodes.append(helper.make_node("Cast", [name], [names[name]], to=within))
    y = "y_cast" if within else "y"
    nodes.append(helper.make_node(op, list(names.values()), [y], domain="ssmdiff", aot=1))
    if within:
        nodes.append(helper.make_node("Cast", [y], ["y"], to=out))
    graph = helper.make_graph(
        nodes, "scan", inputs, [helper.make_tensor_value_info("y", out, None)]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ssmdiff", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    return model.SerializeToString()


def make_session(model: bytes, library: str | None, threads: int = 1) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # refusals are looked at here, not printed
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(library: str, feeds: Feeds, op: str = "SelectiveScan", **choices: Any) -> np.ndarray:
    threads = choices.pop("threads", 1)
    session = make_session(make_model(feeds, op, **choices), library, threads)
    return session.run(None, feeds)[0]


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.astype(np.float64) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("restarts", [0.0, 0.3])
def test_agrees_with_the_reference(library, isa, op, shape, restarts) -> None:
    feeds = make_inputs(shape, restarts=restarts)
    assert_close(run(library, feeds, op), reference(feeds, op), 2e-6)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("within", "precision"), [("FLOAT16", 2**-11), ("BFLOAT16", 2**-8)])
@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_half_precision_rounds_the_output_alone(library, isa, op, within, precision, shape) -> None:
    feeds = make_inputs(shape, restarts=0.1)
    dtype = {"FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16}[within]
    rounded = dict(feeds)
    for name in ("u", "B", "C"):
        rounded[name] = torch.from_numpy(feeds[name]).to(dtype).float().numpy()
    y = run(library, feeds, op, within=getattr(onnx.TensorProto, within))
    expected = reference(rounded, op)
    error = np.abs(y - expected)
    assert (error <= precision * np.abs(expected) + 3e-6 * np.abs(expected).max()).all()


def one_step(values: np.ndarray) -> Feeds:
    """Feeds for which y = delta u, one token after the other, each after a restart."""
    length = len(values) // 16
    ones = np.ones((1, 1, length, 1), np.float32)
    return {
        "u": np.ones((1, length, 16), np.float32),
        "delta": values.reshape(1, 1, length, 16).astype(np.float32),
        "A": np.full((1, 16, 1), -1e-6, np.float32),
        "B": ones,
        "C": ones,
        "order": -1 - np.arange(length, dtype=np.int32)[None],
    }


@pytest.mark.parametrize(
    ("within", "dtype"), [("FLOAT16", torch.float16), ("BFLOAT16", torch.bfloat16)]
)
def test_conversions_of_half_precision(library, isa, within, dtype) -> None:
    """All 65536 numbers are read, and numbers halfway between two are written, as torch does."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    within = getattr(onnx.TensorProto, within)
    feeds = one_step(np.ones(len(halves)))
    feeds["u"] = halves.numpy().reshape(feeds["u"].shape)
    read = run(library, feeds, within=within).ravel()
    np.testing.assert_array_equal(read, halves.numpy())

    finite = halves[halves.isfinite()].sort().values.double()
    middle = ((finite[1:] + finite[:-1]) / 2).float()
    written = torch.cat([middle, middle.nextafter(torch.tensor(9e9)), middle.nextafter(-middle)])
    written = written[written.abs() < 1e7]  # more than that takes the decay out of its range
    written = torch.cat([written, torch.zeros(-len(written) % 16)])
    y = run(library, one_step(written.numpy()), within=within).ravel()
    np.testing.assert_array_equal(y, written.to(dtype).float().numpy())


@pytest.mark.parametrize("op", OPS)
def test_the_exponential_is_accurate(library, isa, op) -> None:
    """The second step, with u = 0, gives exp(d A); a single step of zoh gives (exp(d A) - 1) / A.

    The second adds four roundings to the polynomial's 3.2e-7.
    """
    d = np.concatenate([np.geomspace(1e-9, 1, 800), np.linspace(1, 80, 800)]).astype(np.float32)
    if op == "SelectiveScanZoh":
        feeds = one_step(d)
        feeds["A"][:] = -1
        y, expected = run(library, feeds, op).ravel(), -np.expm1(-d.astype(np.float64))
        bound: Any = 6e-7
    else:
        ones = np.ones((1, 1, 2, 1), np.float32)
        feeds = {
            "u": np.stack([np.ones_like(d), np.zeros_like(d)])[None],
            "delta": np.stack([np.ones_like(d), d])[None, None],
            "A": np.full((1, len(d), 1), -1, np.float32),
            "B": ones,
            "C": ones,
            "order": np.array([[0, 1]], np.int32),
        }
        y, expected = run(library, feeds, op)[0, 0, 1], np.exp(-d.astype(np.float64))
        bound = 4e-7 + 2**-23 * np.maximum(d - 1, 0)  # the rest is from log2(e) d in float32
    assert (np.abs(y / expected - 1) <= bound).all()


def test_the_limits_of_the_decay(library, isa) -> None:
    """It vanishes for large steps; A = 0 is an integrator; an overflow is NaN, never a number."""
    feeds = make_inputs(Shape(1, 1, 7, 5, 3))
    for A, delta in ((-1e30, 1e5), (0.0, 0.5), (-0.0, 1e-3)):
        feeds["A"][:], feeds["delta"][:] = A, delta
        for op in OPS:
            assert_close(run(library, feeds, op), reference(feeds, op), 1e-6)
    feeds["A"][:], feeds["delta"][:] = 1.0, 200.0
    assert np.isnan(run(library, feeds)).all()
    feeds["A"][:], feeds["delta"][:] = -1.0, -200.0
    assert np.isnan(run(library, feeds)).all()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C"])
def test_nan_goes_in_and_comes_out(library, isa, op, name) -> None:
    feeds = make_inputs(Shape(2, 2, 9, 18, 3))
    for bits in (0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF):
        array = feeds[name].copy()
        array.view(np.uint32).flat[array.size // 2] = bits
        y = run(library, {**feeds, name: array}, op)
        expected = np.isnan(reference({**feeds, name: array}, op))
        assert expected.any()
        np.testing.assert_array_equal(np.isnan(y), expected)


def test_the_same_bits_from_any_number_of_threads(library) -> None:
    feeds = make_inputs(Shape(2, 4, 100, 33, 16))
    first = run(library, feeds, threads=1)
    for threads in (2, 3):
        np.testing.assert_array_equal(run(library, feeds, threads=threads), first)


def test_every_element_is_written(library) -> None:
    feeds = make_inputs(Shape(2, 3, 20, 21, 4))
    session = make_session(make_model(feeds), library)
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    output = ort.OrtValue.ortvalue_from_numpy(np.full_like(feeds["delta"], np.nan))
    binding.bind_ortvalue_output("y", output)
    session.run_with_iobinding(binding)
    assert_close(output.numpy(), reference(feeds), 2e-6)


@pytest.mark.parametrize("field", Shape._fields)
def test_empty_dimensions(library, isa, field) -> None:
    shape = Shape(2, 3, 4, 5, 6)._replace(**{field: 0})
    feeds = make_inputs(Shape(2, 3, 4, 5, 6))
    for name, axes in {"u": (0, 2, 3), "delta": (0, 1, 2, 3), "A": (1, 3, 4)}.items():
        feeds[name] = np.ones([shape[axis] for axis in axes], np.float32)
    for name in ("B", "C"):
        feeds[name] = np.ones([shape[axis] for axis in (0, 1, 2, 4)], np.float32)
    feeds["order"] = feeds["order"][: shape.directions, : shape.length]
    np.testing.assert_array_equal(run(library, feeds), np.zeros(feeds["delta"].shape))


REFUSED = {
    "beyond the end": ({(1, 3): 7}, r"order\[1, 3\] is 7, which is token 7; expected .* 0 to 6"),
    "beyond the end, restarting": ({(1, 3): -8}, r"order\[1, 3\] is -8, which is token 7"),
    "largest": ({(0, 0): 2**31 - 1}, r"order\[0, 0\] is 2147483647"),
    "smallest": ({(0, 0): -(2**31)}, r"order\[0, 0\] is -2147483648, which is token 2147483647"),
    "twice": ({(1, 0): 3, (1, 6): 3}, "no permutation: direction 1 visits token 3 twice"),
    "twice, once restarting": ({(0, 2): 3, (0, 5): -4}, "direction 0 visits token 3 twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_orders_are_refused(library, name) -> None:
    entries, message = REFUSED[name]
    feeds = make_inputs(Shape(1, 2, 7, 4, 3))
    session = make_session(make_model(feeds), library)
    good = session.run(None, feeds)[0]
    bad = np.tile(np.arange(7, dtype=np.int32), (2, 1))
    for place, entry in entries.items():
        bad[place] = entry
    with pytest.raises(Exception, match=f"ssmdiff::SelectiveScan: .*{message}"):
        session.run(None, {**feeds, "order": bad})
    np.testing.assert_array_equal(session.run(None, feeds)[0], good)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_an_order_of_another_type_is_refused(library, dtype) -> None:
    feeds = make_inputs(Shape(1, 2, 7, 4, 3))
    feeds["order"] = feeds["order"].astype(dtype)
    with pytest.raises(Exception, match=r"order has element type .* expected int32"):
        run(library, feeds)


@pytest.mark.parametrize("name", RANKS)
def test_shapes_are_checked_against_each_other(library, name) -> None:
    """One more along each axis in turn, one fewer, an axis too many and none at all."""
    feeds = make_inputs(Shape(2, 3, 4, 5, 6))
    session = make_session(make_model(feeds), library)
    good = feeds[name]
    for axis in range(RANKS[name]):
        wrong = [np.repeat(good, 2, axis), np.delete(good, 0, axis), np.take(good, [], axis)]
        for value in wrong:
            with pytest.raises(Exception, match=r"input \w+ has shape \(.*; expected \("):
                session.run(None, {**feeds, name: value})
    for value in (good[None], good[0], np.array(good.flat[0])):
        with pytest.raises(Exception, match=rf"input {name} has \d dimensions; expected \("):
            session.run(None, {**feeds, name: value})


@pytest.mark.parametrize("change", [{"u": np.float16}, {"delta": np.float16}, {"A": np.float64}])
def test_mixed_types_are_refused(library, change) -> None:
    """By ONNX Runtime itself, when it loads the model."""
    feeds = make_inputs(SHAPES[1])
    feeds |= {name: feeds[name].astype(dtype) for name, dtype in change.items()}
    with pytest.raises(Exception, match="SelectiveScan"):
        make_session(make_model(feeds), library)


def test_an_absent_input_is_refused(library) -> None:
    """By ONNX Runtime itself, when it loads the model."""
    feeds = make_inputs(SHAPES[1])
    model = onnx.load_from_string(make_model(feeds))
    model.graph.node[0].input[2] = ""
    with pytest.raises(Exception, match="input 2 is marked single"):
        make_session(model.SerializeToString(), library).run(None, feeds)


def test_an_unknown_instruction_set_is_refused(library, monkeypatch) -> None:
    monkeypatch.setenv("SSMDIFF_SCAN_ISA", "mmx")
    with pytest.raises(Exception, match="SSMDIFF_SCAN_ISA is 'mmx', which this machine does not"):
        make_session(make_model(make_inputs(SHAPES[0])), library)


def test_the_op_wins_over_a_function_of_the_same_name(library) -> None:
    feeds = make_inputs(SHAPES[1])
    body = [onnx.helper.make_node("Sub", ["delta", "delta"], ["y"])]
    opsets = [onnx.helper.make_opsetid("", 20)]
    function = onnx.helper.make_function(
        "ssmdiff", "SelectiveScan", list(feeds), ["y"], body, opsets, ["aot"]
    )
    model = make_model(feeds, functions=[function])
    assert not make_session(model, None).run(None, feeds)[0].any(), "the function gives zeros"
    assert_close(make_session(model, library).run(None, feeds)[0], reference(feeds), 2e-6)


def test_the_library_is_compiled_once(library, monkeypatch) -> None:
    path = Path(library)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parents[1]))
    assert path == build.library()
    before = path.stat()
    assert before.st_mtime_ns == build.library().stat().st_mtime_ns
    assert path.parent.stat().st_mode & 0o077 == 0, "the folder is the user's alone"
    assert [path] == list(path.parent.iterdir()), "nothing temporary is left"
