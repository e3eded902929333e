"""A stand-in for ``tensorrt.plugin``: register, autotune, aot_impl, and a builder that calls them.

Sources, at the tags v10.13.3 and v11.1 of github.com/NVIDIA/TensorRT, in
python/packaging/bindings_wheel/tensorrt/plugin/: _lib.py (the decorators, QDP_REGISTRY),
_validate.py (what a signature must look like), _autotune.py (AutoTuneCombination), _tensor.py
(TensorDesc, symbolic integers, KernelLaunchParams), _top_level.py (cdiv), _plugin_class.py (the
order in which TensorRT calls a plugin: :func:`drive`).
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import onnx

from ._base import DataType

QDP_REGISTRY: dict[str, dict[str, Any]] = {}
_PTX_TYPES = {"u64", "u32"}


class SymIntExpr:
    """An integer for the fewest, the usual and the most images, or a fake one (None)."""

    def __init__(self, value: Any = None) -> None:
        if isinstance(value, SymIntExpr):
            value = value._values
        elif isinstance(value, int):
            value = (value,) * 3
        elif value is not None and not isinstance(value, tuple):
            raise ValueError(f"Unsupported type: '{type(value)}'")
        self._values: tuple[int, ...] | None = value

    def _op(self, other: Any, function: Callable[[int, int], int]) -> SymIntExpr:
        other = SymIntExpr(other)
        if self._values is None or other._values is None:
            return ShapeExpr()
        pairs = zip(self._values, other._values, strict=True)
        return ShapeExpr(tuple(function(a, b) for a, b in pairs))

    def __add__(self, other: Any) -> SymIntExpr:
        return self._op(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> SymIntExpr:
        return self._op(other, lambda a, b: a - b)

    def __mul__(self, other: Any) -> SymIntExpr:  # there is no __rmul__ in _tensor.py
        return self._op(other, lambda a, b: a * b)

    def __floordiv__(self, other: Any) -> SymIntExpr:
        return self._op(other, lambda a, b: a // b)

    def __bool__(self) -> bool:
        raise RuntimeError("Cannot evaluate symbolic expression as boolean.")

    def __index__(self) -> int:
        raise TypeError("a symbolic expression is no int")

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_fake(self) -> bool:
        return self._values is None

    @property
    def is_constant(self) -> bool:
        if self._values is None:
            raise RuntimeError("Not accessible for fake 'ShapeExpr's.")
        return len(set(self._values)) == 1

    def constant_value(self) -> int:
        if not self.is_constant or self._values is None:
            raise RuntimeError("Not accessible for non-constant shape expressions.")
        return self._values[0]


class SymInt32(SymIntExpr):
    pass


class ShapeExpr(SymInt32):
    pass


class SymExprs:
    def __init__(self, length: int) -> None:
        self._exprs: list[Any] = [None] * length

    @classmethod
    def from_tuple(cls, shape_exprs: Any) -> SymExprs:
        exprs = [e if isinstance(e, SymIntExpr) else SymIntExpr(e) for e in shape_exprs]
        made = cls(len(exprs))
        made._exprs = exprs
        return made

    def __iter__(self) -> Any:
        return iter(self._exprs)

    def __getitem__(self, index: int) -> Any:
        return self._exprs[index]

    def __len__(self) -> int:
        return len(self._exprs)


class SymIntExprs(SymExprs):
    pass


def cdiv(first: Any, second: Any) -> SymIntExpr:
    if isinstance(first, int) and isinstance(second, int):
        raise ValueError("Both arguments cannot be 'int's")
    return ShapeExpr(first)._op(second, lambda a, b: -(-a // b))


class TensorDesc:
    def __init__(self, shape_expr: Any = None, dtype: DataType | None = None) -> None:
        self.shape_expr, self.dtype = shape_expr, dtype
        self._immutable = False

    ndim = property(lambda self: len(self.shape_expr))

    def like(self) -> TensorDesc:
        return TensorDesc(self.shape_expr, self.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_immutable", False) and name != "_immutable":
            raise ValueError("Cannot modify immutable TensorDesc properties")
        if name not in ("shape_expr", "dtype", "_immutable"):
            raise AttributeError(f"stub: TensorDesc.{name}")
        object.__setattr__(self, name, value)


class AutoTuneCombination:
    def __init__(
        self, io_types: str | None = None, layouts: str | None = None, tactics: Any = None
    ) -> None:
        self.io_types = [s.strip() for s in io_types.split(",")] if io_types else []
        if layouts not in (None, "LINEAR"):
            raise ValueError(f"stub: layouts {layouts!r}")
        self._tactics = tactics

    def pos(self, pos: Any, io_types: str, layouts: str = "LINEAR") -> None:
        self.io_types.extend([None] * (max(pos) + 1 - len(self.io_types)))  # type: ignore[list-item]
        for place in pos:
            if self.io_types[place] is not None:
                raise ValueError(f"Type(s) for position {place} already specified")
            self.io_types[place] = io_types

    def _get_combinations(self) -> list[tuple[DataType, ...]]:
        """Dependent variants alone ("A|B"); ssmdiff uses no independent ones."""
        lists = [types.split("|") for types in self.io_types]
        count = max(map(len, lists))
        if any(len(names) not in (1, count) for names in lists):
            raise ValueError("Type/Format combinations contain illegal dependent lengths")
        return [
            tuple(_data_type(names[min(i, len(names) - 1)]) for names in lists)
            for i in range(count)
        ]


def _data_type(name: str) -> DataType:  # _utils.py: _str_to_data_type
    if name in ("FP32", "FP16"):
        return DataType.FLOAT if name == "FP32" else DataType.HALF
    return getattr(DataType, name)


class KernelLaunchParams:
    _names = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

    def __init__(self) -> None:
        for name in self._names:
            setattr(self, name, 0 if name == "shared_mem" else 1)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._names:
            raise AttributeError(f"KernelLaunchParams object has no attribute '{name}'")
        self.__dict__[name] = SymInt32(value)


def _parameters(function: Callable[..., Any], tensors: list[str], rest: list[str]) -> None:
    names = list(inspect.signature(function).parameters)
    if names != [*tensors, *rest]:
        raise ValueError(f"Signature {names} does not match the schema {[*tensors, *rest]}")
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            continue
        if name == "outputs":
            if typing.get_origin(annotation) is not tuple:
                raise ValueError(f"'outputs' should be of type Tuple[TensorDesc], is {annotation}")
        elif name == "tactic":
            if not issubclass(annotation, int):
                raise ValueError("'tactic' input argument should be an int")
        elif not issubclass(annotation, TensorDesc):
            raise ValueError(f"'{name}' is annotated {annotation}")


def register(plugin_id: str, lazy_register: bool = False) -> Callable[..., Any]:
    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        namespace, name = plugin_id.split("::")
        if "." in namespace + name or namespace in ("", "trt", "tensorrt", "std"):
            raise ValueError(f"Provided namespace {namespace} is a reserved namespace")
        if plugin_id in QDP_REGISTRY:
            raise ValueError(f"already has a defintion for '{name}'")
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            if parameter.annotation is inspect.Parameter.empty:
                raise ValueError(f"Argument {parameter.name} does not have a type annotation.")
            if not issubclass(parameter.annotation, TensorDesc):
                raise ValueError(f"stub: attributes are not supported ({parameter.name})")
        if not issubclass(signature.return_annotation, TensorDesc):
            raise ValueError("Return types can only be TensorDesc or Tuple[TensorDesc].")
        QDP_REGISTRY[plugin_id] = {"register": function, "tensors": list(signature.parameters)}
        return function

    return decorator


def _registered(plugin_id: str) -> dict[str, Any]:
    if plugin_id not in QDP_REGISTRY:
        raise ValueError(f"Plugin {plugin_id} is not registered.")
    return QDP_REGISTRY[plugin_id]


def autotune(plugin_id: str) -> Callable[..., Any]:
    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        plugin = _registered(plugin_id)
        _parameters(function, plugin["tensors"], ["outputs"])
        returned = inspect.signature(function).return_annotation
        if returned is not inspect.Parameter.empty and typing.get_origin(returned) is not list:
            raise ValueError(f"Return argument is of type {returned}.")
        plugin["autotune"] = function
        return function

    return decorator


def aot_impl(plugin_id: str) -> Callable[..., Any]:
    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        plugin = _registered(plugin_id)
        _parameters(function, plugin["tensors"], ["outputs", "tactic"])
        returned = inspect.signature(function).return_annotation
        if returned is inspect.Parameter.empty:
            raise ValueError("No return annotation found for aot_impl function.")
        expected = "tuple[str | bytes, str | bytes, KernelLaunchParams, SymIntExprs]"
        parts = typing.get_args(returned)
        if typing.get_origin(returned) is not tuple or len(parts) != 4:
            raise ValueError(f"Return annotation is {returned}. Expected {expected}.")
        for part in parts[:2]:
            if not set(typing.get_args(part) or (part,)) <= {str, bytes}:
                raise ValueError(f"Return annotation is {returned}. Expected {expected}.")
        if not issubclass(parts[2], KernelLaunchParams) or not issubclass(parts[3], SymExprs):
            raise ValueError(f"Return annotation is {returned}. Expected {expected}.")
        plugin["aot_impl"] = function
        return function

    return decorator


def drive(model: onnx.ModelProto, nodes: list[Any], batch: list[int]) -> list[dict[str, Any]]:
    """What the builder asks of each plugin, in its order, and what the plan keeps of it."""
    tables = [_values(model, size) for size in batch] if nodes else []
    return [_drive(node, tables) for node in nodes]


def _drive(node: Any, tables: list[dict[str, Any]]) -> dict[str, Any]:
    plugin = QDP_REGISTRY[f"ssmdiff::{node.op_type}"]
    dtypes = [tables[0][name][0] for name in node.input]
    fake = [TensorDesc(SymExprs.from_tuple([ShapeExpr()] * len(tables[0][n][1])), t)
            for n, t in zip(node.input, dtypes, strict=True)]  # fmt: skip
    out_dtype = plugin["register"](*fake).dtype
    real = []
    for name, dtype in zip(node.input, dtypes, strict=True):
        dims = zip(*(table[name][1] for table in tables), strict=True)
        real.append(TensorDesc(SymExprs.from_tuple([ShapeExpr(d) for d in dims]), dtype))
    output = plugin["register"](*real)
    for desc in real:
        desc._immutable = True
    combinations = [
        types for c in plugin["autotune"](*real, [output]) for types in c._get_combinations()
    ]
    if (*dtypes, out_dtype) not in combinations:
        raise RuntimeError(
            f"{node.name}: could not find any supported formats consistent with input/output data "
            f"types {[*dtypes, out_dtype]}; supported: {combinations}"
        )
    kernel, ptx, launch, extras = plugin["aot_impl"](*real, [output], 0)
    if not isinstance(kernel, (str, bytes)) or not isinstance(ptx, (str, bytes)):
        raise TypeError("Kernel name and PTX must be 'str' or 'bytes'.")
    if not isinstance(launch, KernelLaunchParams) or not isinstance(extras, SymExprs):
        raise TypeError("Launch params or extra args are of the wrong type.")
    if not all(isinstance(extra, SymInt32) for extra in extras):
        raise TypeError("Extra args must be a 'tensorrt.plugin.SymInt32'.")
    kernel, ptx = (x.decode() if isinstance(x, bytes) else x for x in (kernel, ptx))
    match = re.search(rf"\.entry {kernel}\((.*?)\)", ptx, re.DOTALL)
    if match is None:
        raise RuntimeError(f"the PTX has no entry {kernel}")
    kinds = re.findall(r"\.param \.(\w+)", match[1])
    if kinds != ["u64"] * len(dtypes) + ["u32"] * len(extras) + ["u64"]:
        raise RuntimeError(f"{kernel} takes {kinds}; expected inputs, int32 extras, outputs")
    if launch.block_x.constant_value() > 1024 or min(launch.grid_x._values) < 1:
        raise RuntimeError(f"{kernel}: impossible launch")
    return {
        "kernel": kernel,
        "grid": launch.grid_x._values,
        "block": launch.block_x.constant_value(),
        "extras": [extra._values for extra in extras],
        "output": [tuple(v) for v in zip(*(e._values for e in output.shape_expr), strict=True)],
    }


def _values(model: onnx.ModelProto, size: int) -> dict[str, tuple[DataType, tuple[int, ...]]]:
    """Data type and shape of every tensor of the graph for one batch size."""
    from ._build import _TYPES

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = size
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    found = {t.name: (_TYPES.get(t.data_type), tuple(t.dims)) for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        dims = tuple(dim.dim_value for dim in tensor.shape.dim)
        found[value.name] = (_TYPES.get(tensor.elem_type), dims)
    return found  # type: ignore[return-value]
