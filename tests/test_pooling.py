"""Pooling: golden values, and indifference to padding for every kind, in both modes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_scripts.modeling.masking import BatchNorm, MaskedBatchNorm
from ser_scripts.modeling.pooling import AttentiveStatistics, Ecapa, Kind, build_pooling, weighted_statistics

KINDS: tuple[Kind, ...] = ("mean", "sum", "max", "attentive_stats", "ecapa")


def frames_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]], [[2.0, 2.0], [4.0, 4.0], [9.0, -9.0]]])
    return frames, torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", [[2.0, -3.0], [5.0, -1.0]]),
        ("sum", [[4.0, -6.0], [15.0, -3.0]]),
        ("max", [[3.0, -2.0], [9.0, 4.0]]),
    ],
)
def test_values_by_hand(kind: Kind, expected: list[list[float]]) -> None:
    torch.testing.assert_close(build_pooling(kind, 2)(*frames_and_mask()), torch.tensor(expected))


def test_weighted_statistics_by_hand() -> None:
    weights = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]])[..., None]
    out = weighted_statistics(frames_and_mask()[0], weights)
    deviation = math.sqrt(0.25 * 1.5**2 + 0.75 * 0.5**2)
    expected = torch.tensor([[2.5, -2.5, deviation, deviation], [3.0, 3.0, 1.0, 1.0]])
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_attention_without_preference_is_the_plain_mean_and_deviation() -> None:
    layer = AttentiveStatistics(2).eval()
    torch.nn.init.zeros_(list(layer.attention.parameters())[2])
    frames, mask = frames_and_mask()
    layer.norm, layer.project = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    out = layer(frames, mask)
    torch.testing.assert_close(out[:, :2], torch.tensor([[2.0, -3.0], [5.0, -1.0]]))
    torch.testing.assert_close(out[0, 2:], torch.tensor([1.0, 1.0]), atol=1e-4, rtol=1e-4)


def test_attention_prefers_what_it_scores_high() -> None:
    layer = AttentiveStatistics(2).eval()
    score = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(score.weight, 50.0)
    layer.attention = score  # type: ignore[assignment]
    layer.norm, layer.project = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    out = layer(*frames_and_mask())
    torch.testing.assert_close(out[:, :2], torch.tensor([[3.0, -2.0], [4.0, 4.0]]))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_a_clip_pools_the_same_alone_and_in_any_batch(kind: Kind, lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    layer = build_pooling(kind, 16).eval()
    clips = [torch.randn(length, 16) for length in lengths]
    frames = torch.full((len(clips), max(lengths), 16), 1e3)
    mask = torch.zeros(frames.shape[:2], dtype=torch.bool)
    for row, clip in enumerate(clips):
        frames[row, : len(clip)], mask[row, : len(clip)] = clip, True
    with torch.inference_mode():
        pooled = layer(frames, mask)
        for row, clip in enumerate(clips):
            alone = layer(clip[None], torch.ones(1, len(clip), dtype=torch.bool))
            torch.testing.assert_close(pooled[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_longer_padding_changes_neither_output_nor_gradient_in_training(kind: Kind) -> None:
    torch.manual_seed(0)
    layer = build_pooling(kind, 16).train()
    mask = torch.arange(9) < torch.tensor([4, 9, 1])[:, None]
    frames = torch.randn(3, 9, 16)

    def run(frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = frames.clone().requires_grad_()
        out = layer(frames, mask)
        out.square().sum().backward()
        assert frames.grad is not None
        return out.detach(), frames.grad

    out, gradient = run(frames, mask)
    longer = torch.cat([frames, torch.full((3, 5, 16), 1e3)], dim=1)
    long_out, long_gradient = run(longer, torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], dim=1))
    assert out.shape == (3, 16)
    torch.testing.assert_close(out, long_out, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient, long_gradient[:, :9], atol=1e-4, rtol=1e-3)
    assert bool(torch.isfinite(long_gradient).all())
    assert long_gradient[:, 9:].abs().max() == 0
    assert gradient[~mask].abs().max() == 0


def test_masked_batch_norm_takes_its_statistics_from_valid_frames() -> None:
    norm = MaskedBatchNorm(2, momentum=1.0).train()
    frames, mask = frames_and_mask()
    normed = norm(frames, mask)
    valid = frames[mask]
    torch.testing.assert_close(norm.running_mean, valid.mean(dim=0))
    torch.testing.assert_close(norm.running_var, valid.var(dim=0))
    torch.testing.assert_close(normed[mask], (valid - valid.mean(0)) / (valid.var(0, unbiased=False) + 1e-5).sqrt())
    assert normed[~mask].abs().max() == 0


def test_batch_norm_takes_one_row_with_its_running_statistics() -> None:
    norm = BatchNorm(3).train()
    assert norm.running_mean is not None
    norm.running_mean.fill_(2.0)
    torch.testing.assert_close(norm(torch.full((1, 3), 5.0)), torch.full((1, 3), 3.0), atol=1e-4, rtol=1e-4)
    assert norm.running_mean.tolist() == [2.0, 2.0, 2.0]
    norm(torch.randn(4, 3))
    assert norm.running_mean.tolist() != [2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", ["attentive_stats", "ecapa"])
def test_a_training_batch_of_one_frame_works(kind: Kind) -> None:
    out = build_pooling(kind, 16).train()(torch.randn(1, 1, 16), torch.ones(1, 1, dtype=torch.bool))
    assert bool(torch.isfinite(out).all())


def test_ecapa_hears_the_order_of_frames() -> None:
    torch.manual_seed(0)
    layer = Ecapa(16).eval()
    frames, mask = torch.randn(1, 12, 16), torch.ones(1, 12, dtype=torch.bool)
    assert (layer(frames, mask) - layer(frames.flip(1), mask)).abs().max() > 1e-3
