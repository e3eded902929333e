"""The model files made by hand stand with the tests of export, the tiny run with training's."""

import sys
from pathlib import Path

for room in ("export", "train"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))
