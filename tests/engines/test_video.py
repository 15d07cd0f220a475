"""VideoAnalysisNet takes any picture size, never looks ahead, steps exactly, and can be explained."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from vedette.engines.models.video import VideoAnalysisNet  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def net() -> VideoAnalysisNet:
    torch.manual_seed(3)
    return VideoAnalysisNet(5, widths=(8, 16), heads=2, window=3).eval()


@pytest.mark.parametrize("hw", [(8, 8), (31, 17), (64, 96)])
def test_any_picture_size(net: VideoAnalysisNet, hw: tuple[int, int]) -> None:
    """Logits come out for odd, tiny and oblong pictures alike."""
    assert net(torch.rand(2, 4, 3, *hw)).logits.shape == (2, 4, 5)


def test_a_step_equals_the_clip_and_never_looks_ahead(net: VideoAnalysisNet) -> None:
    """Frame by frame gives the clip's logits within 1e-12 in float64; a later frame changes none before it."""
    net = net.double()
    clip = torch.rand(2, 9, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        want = net(clip).logits
        past = None
        for t in range(9):
            got, past = net.step(clip[:, t], past)
            torch.testing.assert_close(got, want[:, t], rtol=0, atol=1e-12)
        changed = clip.clone()
        changed[:, 7:] = 0
        torch.testing.assert_close(net(changed).logits[:, :7], want[:, :7], rtol=0, atol=0)
        assert not torch.allclose(net(changed).logits[:, 7], want[:, 7])


def test_weights_explain_without_changing_the_answer(net: VideoAnalysisNet) -> None:
    """Asked for, the weights sum to one and the logits stay; not asked for, there are none."""
    clip = torch.rand(1, 4, 3, 16, 16)
    with torch.no_grad():
        plain, explained = net(clip), net(clip, need_weights=True)
    assert plain.temporal_weights is None
    assert plain.spatial_weights is None
    torch.testing.assert_close(plain.logits, explained.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(explained.temporal_weights.sum(-1), torch.ones(1, 2, 4))
    assert explained.spatial_weights.shape == (4, 2, 4, 4)


def test_it_learns(net: VideoAnalysisNet) -> None:
    """A few gradient steps lower the loss of a two-clip task and reach every parameter."""
    net.train()
    clip, label = torch.rand(2, 3, 3, 16, 16), torch.tensor([0, 1])
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(net(clip).logits[:, -1], label)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in net.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_picture_instead_of_a_clip_is_refused(net: VideoAnalysisNet) -> None:
    """Four axes are refused with the shape in the message."""
    with pytest.raises(ValueError, match=r"got \[1, 3, 8, 8\]"):
        net(torch.rand(1, 3, 8, 8))
