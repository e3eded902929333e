"""The words that a configuration may use for the diffusion process. Imports no torch."""

from typing import Literal

BetaSchedule = Literal["linear", "scaled_linear", "cosine", "sigmoid"]
Prediction = Literal["epsilon", "sample", "v_prediction"]
