"""Copies of a network for a file: in the file's precision, with weights that are numbers."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU in another precision, whose norms still compute in float32."""
    narrow = copy.deepcopy(model).cpu().to(dtype)
    if dtype == torch.float32:
        return narrow
    for wide, norm in zip(model.modules(), narrow.modules(), strict=True):
        if isinstance(norm, NORMS):
            norm.float().load_state_dict(wide.state_dict())
            norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
            norm.register_forward_hook(lambda _, __, y: y.to(dtype))
    return narrow


def plain(model: nn.Module) -> nn.Module:
    """A copy whose weights are numbers, where they are computed at every call (spectral norm)."""
    copied = copy.deepcopy(model).eval()
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            names = list(module.parametrizations)  # type: ignore[arg-type]
            values = {name: getattr(module, name).detach() for name in names}
            # Not by torch's own function, which would change the class of the model's module too.
            before = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.__class__ = before
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return copied
