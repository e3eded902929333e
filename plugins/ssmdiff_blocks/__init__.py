"""Blocks of one mixer: Mamba and Mamba-2 along any scan order, and attention, the baseline."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl

_MAMBA = (
    "Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, COLM 2024, "
    "arXiv:2312.00752; Zhu et al., Vision Mamba: Efficient Visual Representation Learning with "
    "Bidirectional State Space Model, ICML 2024, arXiv:2401.09417"
)
_MAMBA2 = (
    "Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through "
    "Structured State Space Duality, ICML 2024, arXiv:2405.21060"
)
_ATTENTION = (
    "Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762; positions of Heo "
    "et al., Rotary Position Embedding for Vision Transformer, ECCV 2024, arXiv:2403.13298"
)


@hookimpl
def ssmdiff_blocks() -> Iterable[Component]:
    yield Component(
        "mamba",
        "ssmdiff_blocks.mamba:MambaBlock",
        "Mamba with a causal convolution along the order, as in Vim, DiS and ZigMa",
        _MAMBA,
    )
    yield Component(
        "mamba2",
        "ssmdiff_blocks.mamba2:Mamba2Block",
        "Mamba-2 along any order: state space duality in chunked matrix products",
        _MAMBA2,
    )
    yield Component(
        "attention",
        "ssmdiff_blocks.attention:AttentionBlock",
        "transformer block with rotary positions, quadratic in the tokens",
        _ATTENTION,
    )
