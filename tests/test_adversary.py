"""The adversary: its gradient is reversed on the way into the model, and it is no part of it."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch

from ser_scripts.errors import BadInput
from ser_scripts.modeling.adversary import Adversary, reverse_gradient, weight_at
from ser_scripts.ratings import adversary_classes
from ser_scripts.specs.ratings import AdversarySpec


def spec(**keys: Any) -> AdversarySpec:
    return AdversarySpec.model_validate({"kind": "speaker", "schedule": "constant", **keys})


def test_the_gradient_is_that_of_the_cross_entropy_times_minus_the_weight() -> None:
    torch.manual_seed(0)
    pooled = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    adversary = Adversary(spec(weight=0.3, hidden=7), 5, 3).double()
    loss, measured = adversary(pooled, labels, progress=0.5)
    assert loss.item() == 0.0
    loss.backward()
    assert pooled.grad is not None
    reversed_gradient, of_head = pooled.grad.clone(), [p.grad.clone() for p in adversary.parameters()]

    pooled.grad = None
    adversary.zero_grad()
    plain = torch.nn.functional.cross_entropy(adversary.layers(pooled), labels)
    plain.backward()
    torch.testing.assert_close(reversed_gradient, -0.3 * pooled.grad)
    assert bool((reversed_gradient.sign() == -pooled.grad.sign()).all())
    for mine, theirs in zip(of_head, adversary.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad)  # the adversary itself learns at full strength
    assert measured[0].item() == pytest.approx(6 * plain.item())
    assert measured[2].item() == 6


def test_clips_that_do_not_count_have_no_gradient_and_an_update_shares_its_batches() -> None:
    torch.manual_seed(1)
    pooled = torch.randn(4, 5, requires_grad=True)
    adversary = Adversary(spec(weight=1.0), 5, 2)
    loss, measured = adversary(pooled, torch.tensor([0, -1, 1, -1]), progress=0)
    loss.backward()
    assert pooled.grad is not None
    whole = pooled.grad.clone()
    assert bool((whole[[1, 3]] == 0).all())
    assert bool((whole[[0, 2]] != 0).any())
    assert measured[2].item() == 2
    pooled.grad = None
    adversary(pooled, torch.tensor([0, -1, 1, -1]), progress=0, num_items=8)[0].backward()
    torch.testing.assert_close(pooled.grad, whole / 2)


def test_weight_0_passes_nothing_on() -> None:
    vectors = torch.randn(3, 2, requires_grad=True)
    out = reverse_gradient(vectors, 0.0)
    assert torch.equal(out, vectors)
    (out * 5).sum().backward()
    assert vectors.grad is not None
    assert bool((vectors.grad == 0).all())


def test_the_schedule_of_ganin() -> None:
    one = spec(weight=0.2, schedule="ganin")
    assert weight_at(one, 0.0) == 0.0
    assert weight_at(one, 0.1) == pytest.approx(0.2 * 0.46211715726000975)  # 2 / (1 + e^-1) - 1
    assert weight_at(one, 1.0) == pytest.approx(0.2 * (2 / (1 + math.exp(-10)) - 1))
    assert weight_at(spec(weight=0.2), 0.0) == 0.2


def test_a_step_of_the_model_makes_it_harder_for_the_adversary_and_a_step_of_the_adversary_easier() -> None:
    torch.manual_seed(0)
    points = torch.randn(200, 3)
    speaker = (points[:, 0] > 0).long()
    encoder = torch.nn.Linear(3, 4)
    adversary = Adversary(spec(weight=1.0, hidden=16), 4, 2)

    def cross_entropy() -> float:
        _, measured = adversary(encoder(points), speaker, progress=1)
        return float(measured[0] / measured[2])

    for module, harder in ((encoder, True), (adversary, False)):
        before = cross_entropy()
        module.zero_grad()
        adversary(encoder(points), speaker, progress=1)[0].backward()
        torch.optim.SGD(module.parameters(), lr=0.05).step()
        assert (cross_entropy() > before) == harder


def rows(*clips: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(clips, columns=["corpus", "actor", "gender"])


def test_who_is_told_apart() -> None:
    train = rows(("b", "1", "female"), ("a", "1", "male"), ("a", "2", "other"), ("a", "1", "male"))
    assert adversary_classes(spec(), train, model="m") == {("a", "1"): 0, ("a", "2"): 1, ("b", "1"): 2}
    genders = adversary_classes(spec(kind="gender"), train, model="m")
    assert genders == {("a", "1"): 1, ("a", "2"): -1, ("b", "1"): 0}
    with pytest.raises(BadInput, match="a has training clips without a speaker"):
        adversary_classes(spec(), rows(("a", "", "female"), ("a", "1", "male")), model="m")
    with pytest.raises(BadInput, match="fewer than two known speakers"):
        adversary_classes(spec(), rows(("a", "1", "female")), model="m")
    with pytest.raises(BadInput, match="fewer than two known genders"):
        adversary_classes(spec(kind="gender"), rows(("a", "1", "female"), ("a", "2", "unknown")), model="m")
