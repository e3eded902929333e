"""The tiny run that samples are drawn from stands with the tests of export."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
