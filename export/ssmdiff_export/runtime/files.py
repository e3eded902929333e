"""Holds a model file against what ssmdiff writes, before any library opens it.

ONNX is not a harmless format: weights may lie in any file that the model names, and operators of
some domains run code. So the file is read here, by a reader of our own that executes nothing:

- it is a regular file, whole, below protobuf's limit of 2 GB, with an IR and opset that we write;
- every weight outside of it lies in one plain file beside it, no link, whose size and hash the
  model card has;
- every node and function, in subgraphs too, is of the domains ``ai.onnx`` and ``ssmdiff``;
- its model card is there, of bounded size, and valid.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import mmap
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ssmdiff import ExportError

from ssmdiff_export.runtime.card import (
    DOMAIN,
    DOMAIN_VERSION,
    FUSED,
    METADATA,
    OPERATORS,
    ModelCard,
)
from ssmdiff_export.runtime.card import MAX_BYTES as MAX_CARD_BYTES
from ssmdiff_export.runtime.checks import VARINT, Field, fields, varints

MAX_BYTES = (1 << 31) - 1
MAX_FIELDS = 1_000_000
MAX_DEPTH = 32
MAX_TEXT = 1000
IR_VERSIONS = range(8, 14)
OPSETS = range(18, 28)

# The messages of onnx.proto that hold others, by field number. None: a number, a text or a message
# that names no file and no operator. A field that stands in no table is refused.
_MESSAGES: dict[str, dict[int, str | None]] = {
    "model": {
        1: None, 2: None, 3: None, 4: None, 5: None, 6: None, 7: "graph", 8: "opset",
        14: "property", 25: "function",
    },
    "graph": {
        1: "node", 2: None, 5: "tensor", 10: None, 11: None, 12: None, 13: None, 14: None,
        15: "sparse", 16: None,
    },
    "function": {
        1: None, 4: None, 5: None, 6: None, 7: "node", 8: None, 9: "opset", 10: None,
        11: "attribute", 12: None, 13: None, 14: None,
    },
    "node": {
        1: None, 2: None, 3: None, 4: None, 5: "attribute", 6: None, 7: None, 8: None, 9: None,
    },
    "attribute": {
        1: None, 2: None, 3: None, 4: None, 5: "tensor", 6: "graph", 7: None, 8: None, 9: None,
        10: "tensor", 11: "graph", 13: None, 14: None, 15: None, 20: None, 21: None, 22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor", 3: None},
    "tensor": {
        1: None, 2: None, 4: None, 5: None, 6: None, 7: None, 8: None, 9: None, 10: None, 11: None,
        12: None, 13: None, 14: None, 16: None,
    },
    "opset": {1: None, 2: None},
    "property": {1: None, 2: None},
}  # fmt: skip

_BITS = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    16: 16,
}
"""Size of an element by ONNX's number of the type: float, uint8, int8, ..., bfloat16."""


@dataclass(frozen=True)
class FileReport:
    """What was found in a file that may be opened."""

    path: Path
    """Where it lies, links resolved."""
    card: ModelCard
    ir_version: int
    opset: int
    nodes: int
    """In the graph, its subgraphs and the functions."""
    functions: tuple[str, ...]
    external: Path | None = None
    """The file with the weights, when they are outside."""

    def sha256(self) -> str:
        """Of the file itself, which has the hash of the external one in its card."""
        return _sha256(self.path)


def check_model_file(path: str | Path) -> FileReport:
    """Read a model file without opening it in ONNX, ONNX Runtime or TensorRT.

    Raises:
        ExportError: It is missing, damaged, not one that ssmdiff wrote, or reaches for something
            outside of itself; the message says what.
    """
    try:
        resolved = Path(path).resolve(strict=True)
        return _report(resolved, _mapped(resolved))
    except (OSError, ValueError, RuntimeError) as error:  # also a NUL in the name, a loop of links
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"cannot read {str(path)!r}: {reason}") from error
    except ExportError as error:
        raise ExportError(f"{path} is refused: {error}") from error


def _mapped(path: Path) -> memoryview:
    """The file's bytes. The map is closed when the last view of it is gone."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ExportError("it is no regular file; expected an .onnx file")
    if not 0 < status.st_size <= MAX_BYTES:
        raise ExportError(
            f"it has {status.st_size} bytes; expected 1 to {MAX_BYTES}, the limit of protobuf"
        )
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _report(path: Path, data: memoryview) -> FileReport:
    found = _walk(data)
    if not found.ir_versions or any(v not in IR_VERSIONS for v in found.ir_versions):
        raise ExportError(
            f"its IR version is {found.ir_versions or 'missing'}; expected "
            f"{IR_VERSIONS[0]} to {IR_VERSIONS[-1]}"
        )
    opset = _opset(found.opsets)
    card = ModelCard.from_json(_card_text(found.properties))
    missing = sorted(found.operators - set(found.functions))
    if missing or len(set(found.functions)) < len(found.functions):
        raise ExportError(
            f"its nodes use {sorted(found.operators)} and its functions are {found.functions}; it "
            "is truncated, or was not written by ssmdiff"
        )
    return FileReport(
        path,
        card,
        found.ir_versions[-1],
        opset,
        found.nodes,
        tuple(found.functions),
        _external_file(path, card, found.locations),
    )


@dataclass
class _Found:
    """What the walk over the messages gathers."""

    ir_versions: list[int] = field(default_factory=list)
    opsets: list[tuple[str, int]] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)
    """Of our own domain, that nodes use."""
    properties: list[tuple[str, memoryview]] = field(default_factory=list)
    locations: list[dict[str, str]] = field(default_factory=list)
    nodes: int = 0


def _walk(data: memoryview) -> _Found:
    """Every message of the file, its subgraphs and functions, without recursion."""
    found = _Found()
    left = MAX_FIELDS
    messages = [("model", data, 0)]
    while messages:
        kind, view, depth = messages.pop()
        if depth > MAX_DEPTH:
            raise ExportError(f"its messages lie over {MAX_DEPTH} deep in each other")
        content: list[Field] = []
        for item in fields(view):
            left -= 1
            if left < 0:
                raise ExportError(
                    f"it has over {MAX_FIELDS} fields, more than any model of ssmdiff"
                )
            if item.number not in _MESSAGES[kind]:
                raise ExportError(f"a {kind} has field {item.number}, which ssmdiff never writes")
            inner = _MESSAGES[kind][item.number]
            if inner is None:
                content.append(item)
            else:
                messages.append((inner, _bytes(item), depth + 1))
        _READERS.get(kind, _nothing)(found, content)
    return found


def _nothing(found: _Found, content: list[Field]) -> None:
    """For messages of which only what lies in them matters."""


def _read_model(found: _Found, content: list[Field]) -> None:
    found.ir_versions += [_number(item) for item in content if item.number == 1]


def _read_opset(found: _Found, content: list[Field]) -> None:
    versions = [_number(item) for item in content if item.number == 2]
    found.opsets.append((_text(content, 1), versions[-1] if versions else 0))


def _read_node(found: _Found, content: list[Field]) -> None:
    found.nodes += 1
    for domain in _texts(content, 7):
        if domain == DOMAIN:
            found.operators |= _ours(_texts(content, 4), "node")
        elif domain not in ("", "ai.onnx"):
            raise ExportError(
                f"a node is of the domain {domain!r:.60}; expected ONNX's own or {DOMAIN!r}"
            )


def _read_function(found: _Found, content: list[Field]) -> None:
    if set(_texts(content, 10)) != {DOMAIN}:
        raise ExportError(f"it has a function that is not of the domain {DOMAIN!r}")
    found.functions += sorted(_ours(_texts(content, 1), "function"))


def _ours(kinds: list[str], what: str) -> set[str]:
    known = (*OPERATORS.values(), *FUSED)
    if len(kinds) != 1 or kinds[0] not in known:
        raise ExportError(
            f"{DOMAIN} has no {what} {' '.join(kinds)!r:.60}; expected one of {', '.join(known)}"
        )
    return set(kinds)


def _read_property(found: _Found, content: list[Field]) -> None:
    values = [_bytes(item) for item in content if item.number == 2]
    found.properties.append((_text(content, 1), values[-1] if values else memoryview(b"")))


def _read_tensor(found: _Found, content: list[Field]) -> None:
    """Its size must be what its shape says; where its bytes lie outside is kept for later."""
    entries = [_entry(item) for item in content if item.number == 13]
    outside = any(_number(item) for item in content if item.number == 14)
    if entries or outside:
        location = dict(entries)
        if (
            len(location) < len(entries)
            or not location.keys() <= _KEYS
            or "location" not in location
        ):
            raise ExportError(f"a tensor's external data has the keys {[k for k, _ in entries]}")
        found.locations.append(location)
    raw = [_bytes(item) for item in content if item.number == 9]
    if raw:
        sides: list[int] = []
        for item in content:
            if item.number == 1:
                sides += [item.value] if isinstance(item.value, int) else varints(item.value[:80])
        kinds = [_number(item) for item in content if item.number == 2]
        expected = math.prod(sides) * _BITS.get(kinds[-1] if kinds else 0, 0) // 8
        if len(raw[-1]) != expected:
            raise ExportError(
                f"a tensor of shape {sides[:8]} has {len(raw[-1])} bytes; expected {expected}"
            )


def _entry(item: Field) -> tuple[str, str]:
    content = list(itertools.islice(fields(_bytes(item)), 3))
    if len(content) != 2:
        raise ExportError("an entry of a tensor's external data is not one key and one value")
    return _text(content, 1), _text(content, 2)


_KEYS = {"location", "offset", "length", "checksum"}
_READERS: dict[str, Callable[[_Found, list[Field]], None]] = {
    "model": _read_model,
    "opset": _read_opset,
    "node": _read_node,
    "function": _read_function,
    "property": _read_property,
    "tensor": _read_tensor,
}


def _bytes(item: Field) -> memoryview:
    if isinstance(item.value, int):
        raise ExportError(f"field {item.number} holds a number; expected bytes")
    return item.value


def _number(item: Field) -> int:
    if item.kind != VARINT or not isinstance(item.value, int):
        raise ExportError(f"field {item.number} holds bytes; expected a number")
    return item.value


def _texts(content: list[Field], number: int) -> list[str]:
    """All values of a text field; a reader of protobuf would take the last."""
    views = [_bytes(item) for item in content if item.number == number]
    try:
        return [str(view[:MAX_TEXT], "utf-8") for view in views]
    except UnicodeDecodeError as error:
        raise ExportError(f"field {number} is no UTF-8 text") from error


def _text(content: list[Field], number: int) -> str:
    """A text field that may stand once."""
    texts = _texts(content, number)
    if len(texts) > 1:
        raise ExportError(f"field {number} stands twice where it should once")
    return texts[0] if texts else ""


def _opset(opsets: list[tuple[str, int]]) -> int:
    standard = 0
    for domain, version in opsets:
        if domain in ("", "ai.onnx") and version in OPSETS:
            standard = version
        elif (domain, version) != (DOMAIN, DOMAIN_VERSION):
            raise ExportError(
                f"it needs version {version} of the domain {domain or 'ai.onnx'!r:.60}; expected "
                f"ai.onnx {OPSETS[0]} to {OPSETS[-1]} and {DOMAIN} {DOMAIN_VERSION}"
            )
    if not standard:
        raise ExportError("it does not say which operators it needs; it is truncated, or no model")
    return standard


def _card_text(properties: list[tuple[str, memoryview]]) -> bytes:
    cards = [value for key, value in properties if key == METADATA]
    if len(cards) != 1:
        raise ExportError(
            f"it has {len(cards) or 'no'} model cards; expected a file that ssmdiff export wrote"
        )
    if len(cards[0]) > MAX_CARD_BYTES:
        raise ExportError(f"its model card has {len(cards[0])} bytes, over {MAX_CARD_BYTES}")
    return bytes(cards[0])


def _external_file(path: Path, card: ModelCard, locations: list[dict[str, str]]) -> Path | None:
    """The one file beside the model that its weights may lie in."""
    if not locations and card.external_data is None:
        return None
    names = {location["location"] for location in locations}
    for name in sorted(names):
        if name in ("", ".", "..") or set(name) & set("/\\:\0"):
            raise ExportError(
                f"its weights lie in {name!r:.100}; expected the name of a file beside it"
            )
    known = card.external_data
    if known is None or names != {known.location}:
        raise ExportError(
            f"its weights lie in {sorted(names)!r:.100}, and its card names "
            f"{known.location if known else 'no such file'!r}"
        )
    file = path.with_name(known.location)
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise ExportError(f"{file.name!r} is a link or no regular file; expected the weights")
    for location in locations:
        start, size = (_decimal(location.get(key, "0")) for key in ("offset", "length"))
        if start + size > status.st_size:
            raise ExportError(
                f"a tensor lies at {start} to {start + size} of {file.name!r}, which has "
                f"{status.st_size} bytes"
            )
    if status.st_size != known.bytes or _sha256(file) != known.sha256:
        raise ExportError(
            f"{file.name!r} is not the file that was exported: {status.st_size} bytes, expected "
            f"{known.bytes} and sha256 {known.sha256[:12]}..."
        )
    return file


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ExportError(f"a tensor's offset or length is {text!r:.60}; expected a whole number")
    return int(text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
