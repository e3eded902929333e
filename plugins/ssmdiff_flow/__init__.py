"""Rectified flow: a backbone learns the velocity of the straight way from an image to noise."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_methods() -> Iterable[Component]:
    yield Component(
        "flow",
        "ssmdiff_flow.method:FlowMethod",
        "a backbone predicts the velocity from image to noise",
        "Liu et al., Flow Straight and Fast, ICLR 2023, arXiv:2209.03003; "
        "Lipman et al., Flow Matching for Generative Modeling, ICLR 2023, arXiv:2210.02747; "
        "Esser et al., Scaling Rectified Flow Transformers, ICML 2024, arXiv:2403.03206",
    )
