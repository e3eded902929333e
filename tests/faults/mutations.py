"""Damage for the fuzz: bytes anywhere, values of documents, and fields behind their checksums."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from typing import Any

NUMBERS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 1.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "..", "../../x", "/etc/passwd", "a\0b", "\ud800", "é" * 99,
    "os:system", [], [[]], {}, {"name": "x"}, ["name"], [0, 1], [1e9, 1e9], {"": None},
)  # fmt: skip
"""What a value of a document is replaced by; deep nesting and long digits are put in as text."""
DEEP = ("[" * 100_000, '{"a":' * 50_000, "[" * 1_100 + "]" * 1_100, "1" * 5_000, "1e" + "9" * 400)


def some_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to six changes of bytes: set, flipped, a word, inserted, deleted, repeated, cut."""
    changed = bytearray(data)
    gentle = rng.random() < 0.4  # every byte stays at its place
    for _ in range(rng.randint(1, 2 if gentle else 6)):
        # Most damage to the first bytes: headers are where readers go wrong.
        place = int(rng.random() ** (1 if gentle else 3) * max(1, len(changed) - 1))
        length = rng.choice((1, 2, 4, 8, 64, 1024))
        match rng.randrange(3 if gentle else 7):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 2:
                word = rng.choice(NUMBERS) & 0xFFFFFFFF
                changed[place : place + 4] = struct.pack(rng.choice("<>") + "I", word)
            case 3:
                changed[place:place] = rng.randbytes(length)
            case 4:
                del changed[place : place + length]
            case 5:
                changed[place:place] = changed[place : place + length]
            case _:
                del changed[place:]
    return bytes(changed)


def document(rng: random.Random, value: Any) -> Any:
    """A copy of a document in which one to three values, keys or entries are others."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        holders = list(_holders(value))
        if not holders:
            return rng.choice(JUNK)
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        match rng.randrange(5):
            case 0 if isinstance(holder, dict):
                holder[rng.choice(("", "x", "__class__", str(key).upper()))] = holder.pop(key)
            case 1:
                del holder[key]
            case 2:
                other = rng.choice(holders)
                holder[key] = json.loads(json.dumps(other)) if other is not value else None
            case _:
                holder[key] = rng.choice(JUNK)
    return value


def _holders(value: Any) -> Any:
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def json_text(rng: random.Random, data: bytes) -> bytes:
    """A JSON document with other values, a key twice, or nested past any stack."""
    if rng.random() < 0.15:
        return some_bytes(rng, data)
    try:
        text = json.dumps(document(rng, json.loads(data)))
    except (RecursionError, ValueError):  # it was made so by the mutation before
        return some_bytes(rng, data)
    if rng.random() < 0.2:
        place = rng.choice([i for i, letter in enumerate(text) if letter in ":,["] or [0])
        text = text[: place + 1] + rng.choice(DEEP) + text[place + 1 :]
    if rng.random() < 0.1 and text.startswith("{") and len(text) > 2:
        text = f"{text[:-1]}, {text[1:]}"
    return text.encode("utf-8", "surrogatepass")


def png(rng: random.Random, data: bytes) -> bytes:
    """Fields of chunks with their checksum made right again, so that readers believe them."""
    if rng.random() < 0.3:
        return some_bytes(rng, data)
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(chunks))
        kind, body = chunks[i]
        match rng.randrange(4):
            case 0:
                chunks.insert(i, chunks[rng.randrange(len(chunks))])
            case 1 if len(chunks) > 1:
                del chunks[i]
            case 2:
                kind = rng.choice((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"iCCP", b"zTXt"))
                chunks[i] = (kind, body)
            case _:
                chunks[i] = (kind, some_bytes(rng, body) if body else rng.randbytes(5))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff(rng: random.Random, data: bytes) -> bytes:
    """Entries of the first directory: tags, types, counts and values."""
    if rng.random() < 0.3:
        return some_bytes(rng, data)
    changed = bytearray(data)
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    for _ in range(rng.randint(1, 3)):
        place = start + 2 + 12 * rng.randrange(count)
        field, form = rng.choice(((2, "<H"), (4, "<I"), (8, "<I"), (8, "<H")))
        number = rng.choice(NUMBERS) & (0xFFFF if form == "<H" else 0xFFFFFFFF)
        changed[place + field : place + field + struct.calcsize(form)] = struct.pack(form, number)
    return bytes(changed)


def npy(rng: random.Random, data: bytes) -> bytes:
    """The header's type, order and shape, with its length made right again."""
    if rng.random() < 0.3:
        return some_bytes(rng, data)
    (length,) = struct.unpack("<H", data[8:10])
    types = ("|O", "<f8", ">u2", "|S9", "<M8[s]", "|V3", "<c16", "<i8", "|b1", "[('a','<f4')]", "")
    shapes = (
        "()",
        "(0,)",
        "(8, -8)",
        "(8, 8, 8, 8)",
        "(100000, 100000)",
        "(2**40,)",
        "8",
        "(8, 8)",
    )
    text = (
        f"{{'descr': {rng.choice(types)!r}, 'fortran_order': {rng.choice(('True', 'False', '3'))}, "
        f"'shape': {rng.choice(shapes)}, }}"
    ).encode()
    return data[:8] + struct.pack("<H", len(text) + 1) + text + b"\n" + data[10 + length :]


def safetensors(rng: random.Random, data: bytes) -> bytes:
    """The header's document, with its length made right again."""
    if rng.random() < 0.3:
        return some_bytes(rng, data)
    (length,) = struct.unpack("<Q", data[:8])
    head = json_text(rng, data[8 : 8 + length])
    size = len(head) if rng.random() < 0.9 else rng.choice((0, 2**63, 2**32, len(head) + 1))
    return struct.pack("<Q", size) + head + data[8 + length :]


def toml(rng: random.Random, data: bytes) -> bytes:
    """Lines left out, doubled or with another value; nesting and digits past any stack."""
    if rng.random() < 0.3:
        return some_bytes(rng, data)
    lines = data.decode().splitlines()
    values = (
        "nan", "-inf", "1e400", "true", "''", "'x'", "[]", "{}", "[[]]", "1979-05-27",
        "0xffffffffff", "-1", "0", "99999999999999999999", "1" * 5000, "[" * 5_000,
        "{a=" * 3_000, "'../../x'", '"\\u0000"',
        "['x', 1]", "{name = 'x'}", "{name = 'tensorboard', x = 1}", '"os:system"',
    )  # fmt: skip
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(lines))
        key = lines[i].partition("=")[0]
        match rng.randrange(4):
            case 0:
                lines[i] = f"{key}= {rng.choice(values)}"
            case 1:
                lines.insert(rng.randrange(len(lines)), lines[i])
            case 2:
                lines[i] = f"[{'.'.join('a' * rng.choice((1, 2000)))}]"
            case _:
                lines[i] = f"{rng.choice(('x', 'Seed', 'a.b.c', key))} = {rng.choice(values)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def text_lines(rng: random.Random, data: bytes) -> bytes:
    """Lines of a metadata file: others, doubled, without their sign, or no UTF-8."""
    if rng.random() < 0.4:
        return some_bytes(rng, data)
    lines = data.decode().splitlines()
    odd = (
        "", "x", "=", "[", "[]", "[ssmdiff", "[ssmdiff]", "a = b = c", "a = 'x'", "a:b", "\0", " x",
        "a = os:system", "a = ../x", "a = b.c:d [e]", "a =", "= b", "Name:", "Name: ../x",
        "Version: é", "Name: ssmdiff", "Name: Ssmdiff_Fuzzed", "Version: " + "9" * 9999,
    )  # fmt: skip
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(lines) + 1)
        match rng.randrange(3):
            case 0 if i < len(lines):
                del lines[i]
            case 1 if lines:
                lines.insert(i, rng.choice(lines))
            case _:
                lines.insert(i, rng.choice(odd))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def rehashed(manifest: bytes, files: dict[str, bytes]) -> bytes:
    """A manifest that vouches for these files: damage that was there before it was written."""
    document = json.loads(manifest)
    document["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    return json.dumps(document).encode()
