"""Words on pictures: the letters of Aileron, which is in the public domain (CC0), as bits.

Here, because grids are written where no imaging library is installed.
"""

from __future__ import annotations

import base64
import re
import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HEIGHT, FIRST, SPACE = 11, 33, 3
_PACKED = (
    r"c-kdVzi-n(82#>t&zH(_oHP=ah+@YeT9(Q%ffT7uYPA_#7Dg;lAtscu10v@TkSkTBonWjG?EDFrrii6O`3H~-3j>2A7%X9"
    r">oXZXOz3<(-ckk{H)-;_VtO_QGXhhSPRt}^Xs&QSdUMUpCnd-`hEisK@f+<Bx%@|>&9P0`)LX`zqYK$;_{su|yOX{>laKE"
    r"yA>23H~{qecM=5;a~9M!$hiIH^1Mm&)&LDIkwa9z3-I4&W$rfEXqpYmCC3PCkH@lRLx&9)uv*Szb(ZPM5piteAAVRBTH`O"
    r"}ge^VhYJjM#;z*k|U6nm^?{plu}l3UYfI95=Ao=CRu#1cde8y@%41YabgQ-tO=gSj`p<_K>8*<fwjYW6<F}8YI@ZqUW*Y("
    r"KeYbys*DtyHSK(5h(2`Has}~wk`vXz#UF9LnTMfte{Aq`CGXnDNN>42V2((3@3A8Kt!B0Yx5d*dsfH!?uJ~XRcu`y@$&1!"
    r"qrriBk@QuD<*^D$iqd>t*viZpR-p;OU|?bBz@XJ+sziGO!|yW`&EN*ukVQVVU)8+RC|SM?R+N4hUrHG@AyRG_LRhPGS8tO"
    r"aMP+3544Ji<JGNrCV@!FQZ4^~}_+Y7f&M7Gl(a$Hz&eGkj--WIIME{(_!@mVX=_aVV>8Y?#ro!dx3`+RlA=+~;{2uSVYY}"
    r";7jjY}3JXf#qt1;SM<9goKB?aNX;E)nXQyWsIBT-dQWw2??U6PoDh|S8he}}Ft#G?forV&?r{sD?9vOo"
)
"""The widths of the characters from ``FIRST`` on, a byte each, and their columns, a bit a pixel."""


def lines(text: str, width: int) -> list[NDArray[np.uint8]]:
    """(HEIGHT, up to ``width``) each, in 0 and 255: all of the text, broken after a comma, within
    what is wider than a line after a space or a plus sign, and within a word that still is.

    Accents are left out, and what is no letter of ASCII is a question mark.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    found = [b""]

    def put(part: bytes, breaks: Sequence[bytes]) -> None:
        if found[-1] and not _fits(found[-1] + part, width):
            found.append(b"")
        if not breaks or _fits(part, width):
            found[-1] += part
            return
        for smaller in re.findall(breaks[0], part):
            put(smaller, breaks[1:])

    put(plain.encode("ascii", "replace"), (rb"[^,]*,? ?", rb"[^ +]*[ +]?", rb"."))
    return [_line(codes.rstrip())[:, :width] for codes in found]


def _fits(codes: bytes, width: int) -> bool:
    return bool(_line(codes.rstrip()).shape[1] <= width)


def _line(codes: bytes) -> NDArray[np.uint8]:
    return np.concatenate([_BLANK[:, :0], *(_GLYPHS.get(code, _BLANK) for code in codes)], axis=1)


def _unpacked() -> dict[int, NDArray[np.uint8]]:
    """A character's code -> its pixels, and a column to the next."""
    raw = zlib.decompress(base64.b85decode("".join(_PACKED)))
    widths = raw[: 127 - FIRST]
    bits = np.unpackbits(np.frombuffer(raw[len(widths) :], np.uint8))
    columns = bits[: sum(widths) * HEIGHT].reshape(-1, HEIGHT).T * np.uint8(255)
    ends = np.cumsum(list(widths))
    return {
        FIRST + i: np.pad(columns[:, end - w : end], ((0, 0), (0, 1)))
        for i, (end, w) in enumerate(zip(ends, widths, strict=True))
    }


_BLANK = np.zeros((HEIGHT, SPACE), np.uint8)
_GLYPHS = _unpacked()
