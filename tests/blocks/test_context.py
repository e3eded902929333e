"""What a network is told without a place: the row of a label to the bit, numbers in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ssmdiff import Condition, Conditions
from ssmdiff.nn import ContextEmbedding, TimeEmbedding
from ssmdiff.runs.compose import build_backbone
from test_in_backbones import config

LABELS = torch.tensor([2, 0, 4, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_1_among_zeros_is_the_row_that_a_lookup_gives(dtype: torch.dtype) -> None:
    embedding = ContextEmbedding(5, 64).to(dtype)
    told = F.one_hot(LABELS, 5).float()
    assert torch.equal(embedding(told), F.embedding(LABELS, embedding.weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embedding(told), F.embedding(LABELS, embedding.weight))


def test_a_number_is_told_whole_under_autocast() -> None:
    embedding, told = ContextEmbedding(3, 16), torch.rand(4, 3)
    expected = told.double() @ embedding.weight.double()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(embedding(told).double(), expected, rtol=0, atol=1e-6)


def test_it_starts_and_is_called_as_an_embedding_of_labels_was() -> None:
    torch.manual_seed(7)
    weight = torch.nn.Embedding(5, 16).weight
    torch.manual_seed(7)
    assert torch.equal(ContextEmbedding(5, 16).weight, weight)
    names = TimeEmbedding(8, 16, 5).state_dict()
    assert "label.weight" in names
    assert "label.weight" not in TimeEmbedding(8, 16, 0).state_dict()


@pytest.mark.parametrize("backbone", ["vmddpm", "isotropic"])
def test_labels_are_taken_as_whole_numbers_too(backbone: str) -> None:
    """As MONAI's inferers give them."""
    told: Any = Conditions([Condition("label", "label", ("a", "b", "c"))])
    model = build_backbone(config(backbone, "conv", "raster"), 1, told)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
        x, t, label = torch.randn(3, 1, 8, 8), torch.tensor(5), torch.tensor([1, 0, 2])
        by_number = model(x, t, label)
        assert torch.equal(by_number, model(x, t, F.one_hot(label, 3).float()))
        assert not torch.allclose(by_number[0], model(x, t, torch.tensor([2, 0, 2]))[0])
