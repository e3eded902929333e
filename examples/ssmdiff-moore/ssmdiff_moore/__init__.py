"""The Moore curve as a scan for ssmdiff."""

import ssmdiff

SSMDIFF_API = 1


@ssmdiff.hookimpl
def ssmdiff_scans():
    yield ssmdiff.Component(
        "moore",
        "ssmdiff_moore.curve:Moore",
        "the Hilbert curve, closed to a loop; squares of side 2, 4, 8, ...",
        cite="Moore, On certain crinkly curves, Transactions of the AMS 1, 1900",
    )
