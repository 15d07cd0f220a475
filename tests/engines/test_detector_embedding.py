"""The appearance embedding: what it is relative to, and what it must not depend on."""

from __future__ import annotations

import torch

from vedette.engines.models.vedette_nano import EMBEDDING_DIM, STEM, STRANGER_COSINE, Embedder


def embedder() -> tuple[Embedder, torch.Tensor, torch.Tensor]:
    """An embedder with random weights, its maps and six boxes."""
    torch.manual_seed(0)
    low = torch.cat([torch.rand(1, 3, 32, 52) * 255, torch.randn(1, STEM, 32, 52)], 1)
    corner = torch.rand(1, 6, 2) * 0.6
    return Embedder().eval(), low, torch.cat([corner, corner + 0.3], -1)


@torch.no_grad()
def test_others_of_the_label_shift_an_embedding_and_noise_does_not() -> None:
    """What is ordinary comes from sure candidates of the same label alone: weak ones and other labels change nothing."""
    embed, low, boxes = embedder()
    labels = torch.zeros(1, 6, dtype=torch.int64)
    alone = embed(low, boxes, torch.tensor([[0.9, 0.1, 0.1, 0.1, 0.1, 0.1]]), labels)[0, 0]
    beside = embed(low, boxes, torch.full((1, 6), 0.9), labels)[0, 0]
    cars = embed(low, boxes, torch.full((1, 6), 0.9), torch.tensor([[0, 2, 2, 2, 2, 2]]))[0, 0]
    noise = embed(low, boxes[:, :1], torch.tensor([[0.9]]), labels[:, :1])[0, 0]
    assert torch.allclose(alone, noise, atol=1e-5)
    assert torch.allclose(alone, cars, atol=1e-5)
    assert not torch.allclose(alone, beside, atol=1e-2)


@torch.no_grad()
def test_embeddings_have_length_one_and_a_constant_part() -> None:
    """64 numbers of length 1 whose last is constant, so that no cosine falls below 2 STRANGER_COSINE - 1."""
    embed, low, boxes = embedder()
    e = embed(low, boxes, torch.rand(1, 6), torch.zeros(1, 6, dtype=torch.int64))[0]
    assert e.shape == (6, EMBEDDING_DIM)
    assert torch.allclose(e.norm(dim=1), torch.ones(6), atol=1e-4)
    assert torch.allclose(e[:, -1], torch.full((6,), STRANGER_COSINE**0.5))
    assert (e @ e.T).min() >= 2 * STRANGER_COSINE - 1 - 1e-4
