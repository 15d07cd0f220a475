"""The attention library equals torch.nn.functional, has right gradients, and hides weights until asked."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

from vedette.engines.models import attention as att  # noqa: E402

pytestmark = pytest.mark.torch

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 1), (2, 3, 4, 7)])
@pytest.mark.parametrize("dim", [-1, 0])
def test_softmax_equals_torch(shape: tuple[int, ...], dim: int) -> None:
    """softmax equals F.softmax for any shape and axis, and survives logits of 1e4."""
    x = torch.randn(shape, dtype=F64) * 1e4
    torch.testing.assert_close(att.softmax(x, dim), F.softmax(x, dim))


def test_softmax_of_nothing_is_zero() -> None:
    """A row of -inf gives zeros, not NaN."""
    assert att.softmax(torch.full((2, 3), -torch.inf)).eq(0).all()


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize("m", [1, 33])
@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_sdpa_equals_torch(n: int, m: int, kind: str, scale: float | None) -> None:
    """Both roads (fused, and written out with weights) equal F.scaled_dot_product_attention for every mask kind."""
    q, k, v = torch.randn(2, 3, n, 8, dtype=F64), torch.randn(2, 3, m, 8, dtype=F64), torch.randn(2, 3, m, 5, dtype=F64)
    mask = {"none": None, "bool": torch.rand(n, m) > 0.4, "additive": torch.randn(2, 1, n, m, dtype=F64)}[kind]
    if kind == "bool":
        mask[:, 0] = True
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    fused, nothing = att.scaled_dot_product_attention(q, k, v, mask=mask, scale=scale)
    written, weights = att.scaled_dot_product_attention(q, k, v, mask=mask, scale=scale, need_weights=True)
    assert nothing is None
    torch.testing.assert_close(fused, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(written, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, n, dtype=F64))


def test_sdpa_with_a_closed_row_answers_zero_on_both_roads() -> None:
    """A query that may look at nothing answers zeros with and without weights."""
    q = torch.randn(1, 1, 2, 4, dtype=F64)
    mask = torch.tensor([[False, False], [True, False]])
    for need in (False, True):
        y, _ = att.scaled_dot_product_attention(q, q, q, mask=mask, need_weights=need)
        assert y[0, 0, 0].eq(0).all()
        torch.testing.assert_close(y[0, 0, 1], q[0, 0, 0])


def test_sdpa_refuses_shapes_that_do_not_meet() -> None:
    """Keys of another width are refused with the three shapes in the message."""
    with pytest.raises(ValueError, match=r"got \[1, 2, 4\], \[1, 2, 3\]"):
        att.scaled_dot_product_attention(torch.zeros(1, 2, 4), torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))


@pytest.mark.parametrize("bias", [True, False])
def test_multi_head_equals_torch(bias: bool) -> None:
    """MultiHeadAttention equals nn.MultiheadAttention with the same weights, output and weights alike."""
    ours = att.MultiHeadAttention(12, 3, bias=bias).double()
    theirs = torch.nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
            theirs.out_proj.bias.copy_(ours.out.bias)
    x, context = torch.randn(2, 5, 12, dtype=F64), torch.randn(2, 7, 12, dtype=F64)
    want, want_weights = theirs(x, context, context, average_attn_weights=False)
    for need in (False, True):
        y, weights = ours(x, context, need_weights=need)
        torch.testing.assert_close(y, want)
        assert (weights is None) is not need
    torch.testing.assert_close(weights, want_weights)


def test_heads_must_divide_the_width() -> None:
    """Five heads for a width of twelve are refused."""
    with pytest.raises(ValueError, match="got 12 and 5"):
        att.MultiHeadAttention(12, 5)


def test_cross_attention_takes_another_width_and_hides_what_is_absent() -> None:
    """Video may look at audio of another width; hidden tokens change nothing; none valid leaves only the bias."""
    m = att.CrossAttention(8, 2, d_context=3).double()
    x, audio = torch.randn(2, 4, 8, dtype=F64), torch.randn(2, 5, 3, dtype=F64)
    valid = torch.tensor([[True, True, False, False, False], [False] * 5])
    y, weights = m(x, audio, context_valid=valid, need_weights=True)
    only_two, _ = m(x[:1], audio[:1, :2])
    torch.testing.assert_close(y[:1], only_two)
    torch.testing.assert_close(y[1], m.out.bias.expand(4, 8))
    assert weights[0, :, :, 2:].eq(0).all()
    fused, _ = m(x, audio, context_valid=valid)
    torch.testing.assert_close(fused, y)


@pytest.mark.parametrize("hw", [(1, 1), (3, 5), (7, 2)])
def test_spatial_attention_moves_with_the_positions(hw: tuple[int, int]) -> None:
    """Spatial attention has no built-in order: permuting the positions permutes the output."""
    m = att.SpatialAttention(8, 2).double()
    x = torch.randn(2, 8, *hw, dtype=F64)
    order = torch.randperm(hw[0] * hw[1])
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(m(shuffled)[0].flatten(2), m(x)[0].flatten(2)[..., order])
    _, weights = m(x, need_weights=True)
    assert weights.shape == (2, 2, hw[0] * hw[1], hw[0] * hw[1])


@pytest.mark.parametrize("window", [1, 3, 50])
def test_temporal_attention_sees_its_band_and_steps_exactly(window: int) -> None:
    """The band holds, later frames never matter, and stepping frame by frame equals the clip."""
    m = att.TemporalAttention(8, 2, window).double()
    x = torch.randn(2, 11, 8, dtype=F64)
    y, weights = m(x, need_weights=True)
    assert weights[..., ~att.band_mask(11, window)].eq(0).all()
    changed = x.clone()
    changed[:, 6:] += 1
    torch.testing.assert_close(m(changed)[0][:, :6], m(x)[0][:, :6], rtol=0, atol=0)
    past = None
    for t in range(11):
        now, past = m.step(x[:, t], past)
        torch.testing.assert_close(now, y[:, t], rtol=0, atol=1e-12)
    assert past.shape[-2] == min(11, window)


def test_band_mask_is_the_definition() -> None:
    """band_mask[i,j] is true exactly where 0 <= i - j < window."""
    want = [[0 <= i - j < 3 for j in range(6)] for i in range(6)]
    assert att.band_mask(6, 3).tolist() == want
    with pytest.raises(ValueError, match="got 6 and 0"):
        att.band_mask(6, 0)


@pytest.mark.parametrize("need", [False, True])
def test_gradients_are_right(need: bool) -> None:
    """Analytic gradients equal finite differences in float64, for inputs, on both roads."""
    mask = att.band_mask(4, 2)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return att.scaled_dot_product_attention(q, k, v, mask=mask, need_weights=need)[0]

    q, k, v = (torch.randn(1, 2, 4, 3, dtype=F64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(attend, (q, k, v))
    x = torch.randn(2, 5, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(att.softmax, (x,))


def test_attention_block_keeps_the_residual_and_halves_the_map() -> None:
    """With a zero output projection the block is its convolution; an odd size rounds up."""
    block = att.AttentionBlock(3, 8, 2).eval()
    x = torch.randn(2, 3, 9, 13)
    with torch.no_grad():
        block.attention.attention.out.weight.zero_()
        block.attention.attention.out.bias.zero_()
    y, _ = block(x)
    assert y.shape == (2, 8, 5, 7)
    torch.testing.assert_close(y, F.silu(block.bn(block.conv(x))))


def test_nobody_pays_for_weights_that_were_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without need_weights the written-out softmax is never entered."""
    monkeypatch.setattr(att, "softmax", lambda *_: pytest.fail("softmax was computed for weights nobody asked for"))
    att.SelfAttention(8, 2)(torch.randn(1, 3, 8))
