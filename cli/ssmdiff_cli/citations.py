"""References of one line as BibTeX. Imports no torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

_ARXIV = re.compile(r"arXiv:\s*(\d{4}\.\d{4,5})(v\d+)?", re.IGNORECASE)
_DOI = re.compile(r"doi:\s*(10\.[^\s,;]+)", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:18|19|20)\d{2}\b")
_APART = re.compile(r"(?<=\d{4}\.\d{5}),\s*(?:and\s+)?(?=[A-Z][\w'-]+ (?:et al|and))|;\s*")
"""Between two references of one line: a semicolon, or an arXiv number that another author follows.
"""
_HEAD = re.compile(r"\s*@\w+\s*\{\s*([^,\s]*)")
_HEAD_NEXT = re.compile(r"\n\s*(?=@\w+\s*\{)")
_NUMBER = re.compile(
    r"\b(?:eprint|doi|journal|url|howpublished)\s*=\s*[{\"]?[^{}\"\n]*?"
    r"(\d{4}\.\d{4,5}|10\.\d{4,9}/[^\s,;{}\"]+)",
    re.IGNORECASE,
)
"""The arXiv number or the DOI of an entry that is BibTeX already."""
_TITLE = re.compile(
    r"\btitle\s*=\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\"[^\"]*\")", re.IGNORECASE
)
_LEAD = re.compile(r"^[a-z].*?(?=[A-Z][\w'-]+(?: et al| and [A-Z]|,))")
"""What is said before the authors, such as ``as a scan: ``."""


class Entry(NamedTuple):
    """A BibTeX entry, the key that it is cited by, and what tells it from others."""

    key: str
    text: str
    identity: str
    """The arXiv number or the DOI, or else the title."""


def bibtex(reference: str) -> list[Entry]:
    """The entries of a component's ``cite``: BibTeX as it is, a line as ``@misc``.

    A line is ``Authors, Title, Venue Year, arXiv:YYMM.NNNNN``, each but the authors may be missing;
    several references stand in one line with ``;`` between them.
    """
    if reference.lstrip().startswith("@"):
        return [_written(text.strip()) for text in _HEAD_NEXT.split(reference.strip())]
    return [_entry(part) for part in _APART.split(reference) if re.search("[A-Za-z]", part)]


def own(version: str) -> Entry:
    """The entry of ssmdiff itself, as CITATION.cff has it."""
    return _written(
        "@software{ssmdiff,\n"
        "  author = {{The ssmdiff developers}},\n"
        "  title = {{ssmdiff: a modular plugin ecosystem for state-space (Mamba) diffusion "
        "models}},\n"
        f"  version = {{{version}}},\n"
        "  license = {Apache-2.0},\n"
        "}"
    )


def _written(text: str) -> Entry:
    """An entry that is BibTeX already."""
    head, number = _HEAD.match(text), _NUMBER.search(text)
    identity = number[1].lower() if number else _words(text)
    return Entry(head[1] if head else "", text, identity)


def _words(text: str) -> str:
    """Of an entry without a number: its title, or all of it, in small letters and digits alone."""
    title = _TITLE.search(text)
    return re.sub(r"\W+", "", (title[1] if title else text).lower())


def _entry(line: str) -> Entry:
    text = _LEAD.sub("", line.strip().rstrip("."))
    arxiv, doi = _ARXIV.search(text), _DOI.search(text)
    year = _YEAR.search(_ARXIV.sub("", text))
    plain = _DOI.sub("", _ARXIV.sub("", text))
    plain = plain.replace("()", "")
    authors, *parts = [part for part in (p.strip(" ,") for p in plain.split(", ")) if part]
    published = ""
    if len(parts) > 1 and _YEAR.search(parts[-1]):
        published = parts.pop()
    fields = {"author": re.sub(r"\s+et al\.?$", " and others", authors)}
    if parts:
        fields["title"] = f"{{{', '.join(parts)}}}"
    if published and not _YEAR.fullmatch(published):
        fields["howpublished"] = published
    if year or arxiv:
        fields["year"] = year.group(0) if year else f"20{arxiv.group(1)[:2]}" if arxiv else ""
    fields = {name: re.sub(r"([&%$#_])", r"\\\1", value) for name, value in fields.items()}
    if arxiv:
        number = arxiv.group(1)
        fields |= {"eprint": number, "archivePrefix": "arXiv"}
        fields["url"] = f"https://arxiv.org/abs/{number}"
    if doi:
        fields["doi"] = doi.group(1)
    key = _key(authors, fields)
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    text = f"@misc{{{key},\n{lines}}}"
    return Entry(key, text, fields.get("eprint") or fields.get("doi", "").lower() or _words(text))


def collected(references: Iterable[str]) -> list[Entry]:
    """Each work once, in its fullest form, under a key that no other has."""
    works: dict[str, Entry] = {}
    for entry in (entry for reference in references for entry in bibtex(reference)):
        before = works.get(entry.identity)
        if before is None or len(entry.text) > len(before.text):
            works[entry.identity] = entry
    taken: set[str] = set()
    found = []
    for entry in works.values():
        key = entry.key or "reference"
        while key.lower() in taken:  # BibTeX takes Ho2020 and ho2020 for one
            key += "x"
        taken.add(key.lower())
        start, end = head.span(1) if (head := _HEAD.match(entry.text)) else (0, 0)
        text = f"{entry.text[:start]}{key}{entry.text[end:]}"
        found.append(Entry(key, text, entry.identity))
    return found


def _key(authors: str, fields: dict[str, str]) -> str:
    """``ho2020ddpm``: first author, year, first word of the title, in plain letters."""
    first = re.split(r"\s+(?:and|et)\s+", authors)[0].split(" ")[-1]
    words = re.split(r"[\s:]+", fields.get("title", "").strip("{}"))
    joined = f"{first}{fields.get('year', '')}{words[0]}"
    plain = unicodedata.normalize("NFKD", joined).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower()) or "reference"
