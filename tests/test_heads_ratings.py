"""Heads that predict ratings, alone or beside classes: as an ordinary loop does, the same bits in any company."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ser_eval import metrics
from ser_scripts.errors import Finding
from ser_scripts.modeling.ratings import rating_losses, ratings_loss, ratings_slope
from ser_scripts.specs.model import EarlyStoppingSpec, HeadSpec, LossSpec, TrainingSpec
from ser_scripts.specs.ratings import RatingsSpec
from ser_scripts.training.heads import HeadJob, Inputs, Rated, TrainedHead, head_logits, head_ratings, train_heads
from ser_scripts.training.seeding import derive
from tests.test_heads import (
    FORMS,
    FRAME_MLP,
    NUM_LABELS,
    TRAINING,
    agree_all,
    frame_job,
    job,
    loop,
    ragged,
    same,
    world,
)
from tests.test_heads import train as train_classes

DIMENSIONS = ("valence", "arousal")
BOTH = RatingsSpec(dimensions=DIMENSIONS, weight=0.7)
ONLY = RatingsSpec(dimensions=DIMENSIONS, only=True)
LAST = TRAINING.model_copy(update={"select": "last"})
CCC = TRAINING.model_copy(update={"select": "val_ccc"})


def rated(inputs: Inputs, spec: RatingsSpec, *, share: float = 0.7) -> Rated:
    """Ratings that follow what clips are like, a share of them there."""
    generator = np.random.default_rng(3)
    if isinstance(inputs, np.ndarray):
        heard = inputs[:, 1, 4:6].astype(np.float64)
    else:
        heard = np.stack([inputs.values[a:b, 3:5].astype(np.float64).mean(axis=0) for a, b in pairwise(inputs.starts)])
    values = np.clip(0.5 + 0.15 * (heard - heard.mean(axis=0)), 0, 1) + generator.normal(0, 0.02, heard.shape)
    values[generator.random(values.shape) > share] = np.nan
    return Rated(spec, values[:, : len(spec.dimensions)])


def train(
    jobs: list[HeadJob],
    spec: RatingsSpec | None,
    head: HeadSpec = FORMS["linear-bare"],
    training: TrainingSpec = CCC,
    share: float = 0.7,
    workers: int | None = None,
) -> list[TrainedHead]:
    wanted = None if spec is None else rated(world()[0], spec, share=share)
    return train_classes(jobs, head, training, workers, wanted)


def hard(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.eye(NUM_LABELS, dtype=np.float32)[labels]


# ---- the gradient ----


@pytest.mark.parametrize("name", ["ccc", "mse", "smooth_l1"])
@given(seed=st.integers(0, 10_000), clips=st.integers(1, 12), share=st.floats(0, 1))
@settings(max_examples=25)
def test_the_written_gradient_is_that_of_autograd_for_one_batch_and_for_many(
    name: str, seed: int, clips: int, share: float
) -> None:
    spec = RatingsSpec.model_validate({"loss": name, "dimensions": DIMENSIONS})
    generator = np.random.default_rng(seed)
    truth = generator.random((3, clips, 2))
    truth[generator.random(truth.shape) > share] = np.nan
    predicted = torch.from_numpy(generator.normal(0.5, 0.3, truth.shape)).requires_grad_()
    found = ratings_slope(predicted.detach(), torch.from_numpy(truth), spec)
    for number in range(3):
        loss = ratings_loss(predicted[number], torch.from_numpy(truth[number]), spec)
        (expected,) = torch.autograd.grad(loss, predicted)
        torch.testing.assert_close(found[number], expected[number], atol=1e-9, rtol=1e-7)
        several = rating_losses(predicted.detach(), torch.from_numpy(truth), spec)[number].mean()
        torch.testing.assert_close(several, loss.detach())
    assert (found[torch.from_numpy(np.isnan(truth))] == 0).all()


# ---- as anybody would train them ----


@pytest.mark.parametrize("spec", [BOTH, ONLY], ids=["both", "only"])
@pytest.mark.parametrize("layer", [1, None], ids=["layer", "weighted"])
@pytest.mark.parametrize("form", FORMS)
def test_it_does_what_an_ordinary_loop_with_autograd_does(form: str, layer: int | None, spec: RatingsSpec) -> None:
    table, labels = world()
    one = job(3, layer, weight_decay=0.05, learning_rate=5e-3)
    found = train([one], spec, FORMS[form], LAST)[0]
    agree_all(found, loop(table, one, FORMS[form], LAST, hard(labels), rated=rated(table, spec)))


@pytest.mark.parametrize("name", ["mse", "smooth_l1"])
@pytest.mark.parametrize("scheduler", ["cosine", "plateau"])
def test_the_other_losses_in_a_group_and_alone(name: str, scheduler: str) -> None:
    """A schedule that follows validation keeps a linear head out of the batched products."""
    table, labels = world()
    spec = RatingsSpec.model_validate({"loss": name, "dimensions": ["arousal"], "weight": 3.0})
    training = LAST.model_copy(update={"scheduler": scheduler})
    one = job(2, weight_decay=0.05, learning_rate=5e-3)
    if scheduler == "plateau":
        steady = LAST.model_copy(update={"scheduler": "constant"})  # four epochs: the rate stays
        expected = loop(table, one, FORMS["linear"], steady, hard(labels), rated=rated(table, spec))
    else:
        expected = loop(table, one, FORMS["linear"], training, hard(labels), rated=rated(table, spec))
    agree_all(train([one], spec, FORMS["linear"], training)[0], expected)


@pytest.mark.parametrize("spec", [BOTH, ONLY], ids=["both", "only"])
def test_a_head_over_frames_averages_its_ratings_over_a_clip(spec: RatingsSpec) -> None:
    frames, labels = ragged()
    one, rates = frame_job(0), rated(frames, spec)
    training = LAST.model_copy(update={"epochs": 6})
    (found,) = train_heads(
        frames, labels, NUM_LABELS, [one], head=FRAME_MLP, loss=LossSpec(label_smoothing=0.1), training=training,
        rated=rates,
    )  # fmt: skip
    bounds = {"w1": (6 / (6 + 8)) ** 0.5}
    agree_all(found, loop(frames, one, FRAME_MLP, training, hard(labels), bounds=bounds, rated=rates))
    predicted = head_ratings(frames, found.weights, 0, FRAME_MLP)
    assert predicted.shape == (60, 2)
    known = one.validation[~np.isnan(rates.values[one.validation, 1])]
    assert dict(found.history[-1].further)["val_ccc_arousal"] == pytest.approx(
        metrics.ccc(rates.values[known, 1], predicted[known, 1].astype(np.float64))
    )


# ---- together ----


@pytest.mark.parametrize("head", ["linear", "linear-dropout", "mlp-norm-dropout"])
@pytest.mark.parametrize("layer", [1, None], ids=["layer", "weighted"])
@pytest.mark.parametrize("spec", [BOTH, ONLY], ids=["both", "only"])
def test_a_training_gives_the_same_bits_alone_and_in_any_company(
    head: str, layer: int | None, spec: RatingsSpec
) -> None:
    stopping = EarlyStoppingSpec(metric="val_ccc", patience=1, min_delta=0.0)
    training = CCC.model_copy(update={"epochs": 8, "early_stopping": stopping})
    jobs = [job(number, layer, learning_rate=0.05 if number % 2 else 0.01) for number in range(20)]
    together = train(jobs, spec, FORMS[head], training, workers=2)
    for number in (0, 7, 18):
        assert same(train([jobs[number]], spec, FORMS[head], training)[0], together[number])


@pytest.mark.parametrize("head", ["linear-dropout", "mlp-norm-dropout"])
def test_where_nothing_is_shared_classes_are_what_they_are_without_ratings(head: str) -> None:
    """Each head has draws of its own; without a common norm of gradients the two do not meet."""
    training = LAST.model_copy(update={"gradient_clip": None})
    plain = train([job(4)], None, FORMS[head], training)[0]
    beside = train([job(4)], BOTH, FORMS[head], training)[0]
    alone = train([job(4)], ONLY, FORMS[head], training)[0]
    assert set(beside.weights) == {*plain.weights, *alone.weights}
    for name, value in plain.weights.items():
        np.testing.assert_allclose(beside.weights[name], value, atol=1e-6)
    if head == "linear-dropout":  # not weighed against a loss of classes: AdamW hardly minds the factor .7
        np.testing.assert_allclose(beside.weights["rating_w"], alone.weights["rating_w"], atol=1e-2)


# ---- what is told, chosen and left out ----


def test_history_and_choice_are_those_of_the_ratings() -> None:
    table, labels = world()
    training = CCC.model_copy(update={"epochs": 12})
    found = train([job(2, learning_rate=5e-2)], BOTH, FORMS["linear"], training)[0]
    names = ["val_ccc", "val_ccc_valence", "val_rmse_valence", "val_ccc_arousal", "val_rmse_arousal"]
    assert [name for name, _ in found.history[0].further] == names
    assert found.selected.val_ccc == max(row.val_ccc for row in found.history) > 0.7
    side = job(2).validation
    truth = rated(table, BOTH).values[side]
    predicted = head_ratings(table[side], found.weights, 1, FORMS["linear"]).astype(np.float64)
    scores = dict(found.selected.further)
    for number, name in enumerate(DIMENSIONS):
        known = ~np.isnan(truth[:, number])
        pair = truth[known, number], predicted[known, number]
        assert scores[f"val_ccc_{name}"] == pytest.approx(metrics.ccc(*pair))
        assert scores[f"val_rmse_{name}"] == pytest.approx(metrics.mse(*pair) ** 0.5)
    logits = head_logits(table[side], found.weights, 1, FORMS["linear"])
    assert (logits.argmax(1) == labels[side]).mean() == pytest.approx(found.selected.val_accuracy)


def test_the_layer_that_knows_the_rating_wins_on_validation() -> None:
    training = CCC.model_copy(update={"epochs": 20})
    found = train([job(0, layer, learning_rate=1e-2) for layer in range(3)], ONLY, training=training)
    assert int(np.argmax([head.selected.val_ccc for head in found])) == 1
    weighted = train([job(0, None, learning_rate=3e-2)], ONLY, training=training)[0]
    assert int(np.argmax(weighted.weights["layer_weights"])) == 1


def test_ratings_alone_have_no_head_of_classes_and_say_so_in_numbers() -> None:
    found = train([job(1)], ONLY)[0]
    assert set(found.weights) == {"mean", "scale", "rating_w", "rating_b"}
    assert [row.val_loss for row in found.history] == pytest.approx([np.log(NUM_LABELS)] * 4)
    assert [row.val_uar for row in found.history] == pytest.approx([1 / NUM_LABELS] * 4)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_training_loss_is_that_of_both_tasks_counted_by_clips(head: str) -> None:
    """With a rate of 0 the loss of the epoch is that of the start, batch by batch."""
    table, _ = world()
    one = job(0, learning_rate=1e-30)
    training = LAST.model_copy(update={"epochs": 1})
    losses = [train([one], spec, FORMS[head], training)[0].history[0].train_loss for spec in (None, ONLY, BOTH)]
    assert losses[2] == pytest.approx(losses[0] + 0.7 * losses[1], rel=1e-6)
    order = np.random.Generator(np.random.PCG64(derive("order", one.seed, 0))).permutation(one.train)
    start = train([one], ONLY, FORMS[head], training)[0]
    predicted = torch.from_numpy(head_ratings(table, start.weights, 1, FORMS[head]))
    wanted = torch.from_numpy(rated(table, ONLY).values).float()
    parts = [order[at : at + 16] for at in range(0, len(order), 16)]
    expected = sum(len(part) * float(ratings_loss(predicted[part], wanted[part], ONLY)) for part in parts) / len(order)
    assert losses[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_an_unrated_clip_teaches_ratings_nothing(head: str) -> None:
    """A batch with fewer than two rated clips gives no gradient: with none at all the head stays at its start."""
    with_few = train([job(0, weight_decay=0.0)], ONLY, FORMS[head], LAST, share=0.97)[0]
    table, labels = world()
    nothing = Rated(ONLY, np.full((150, 2), np.nan))
    nothing.values[job(0).validation] = rated(table, ONLY, share=1.0).values[job(0).validation]
    options = {"head": FORMS[head], "loss": LossSpec(), "training": LAST}
    still = train_heads(table, labels, NUM_LABELS, [job(0)], rated=nothing, **options)[0]  # type: ignore[arg-type]
    assert [row.train_loss for row in still.history] == [0.0] * 4
    assert len({row.val_ccc for row in still.history}) == 1
    np.testing.assert_array_equal(still.weights["rating_b"], [0.5, 0.5])
    assert not np.array_equal(with_few.weights["rating_w"], still.weights["rating_w"])


def test_votes_and_ratings_go_together() -> None:
    table, labels = world()
    votes = np.random.default_rng(4).dirichlet([1.0] * NUM_LABELS, len(labels)).astype(np.float32)
    one = job(1, weight_decay=0.05)
    options = {"head": FORMS["mlp"], "loss": LossSpec(label_smoothing=0.1, targets="votes"), "training": LAST}
    (found,) = train_heads(
        table,
        labels,
        NUM_LABELS,
        [one],
        targets=votes,
        rated=rated(table, BOTH),
        **options,  # type: ignore[arg-type]
    )
    agree_all(found, loop(table, one, FORMS["mlp"], LAST, votes, rated=rated(table, BOTH)))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_what_is_not_finite_is_said(head: str) -> None:
    squares = ONLY.model_copy(update={"loss": "mse"})
    with pytest.raises(Finding, match="the loss of a head is not finite"):
        train([job(0, learning_rate=1e30)], squares, FORMS[head], LAST)
    once = LAST.model_copy(update={"epochs": 1, "batch_size": 200, "scheduler": "constant", "warmup": 0.0})
    with pytest.raises(Finding, match="the predicted ratings of the validation clips are not finite"):
        train([job(0, learning_rate=1e38)], squares, FORMS[head], once)
