"""Heads trained side by side: the same bits alone and in company, the same numbers as an ordinary training loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from ser_scripts.errors import Finding
from ser_scripts.modeling.losses import cross_entropy
from ser_scripts.specs.model import EarlyStoppingSpec, HeadSpec, LossSpec, TrainingSpec
from ser_scripts.training.heads import GROUP, HeadJob, TrainedHead, head_logits, train_heads
from ser_scripts.training.schedules import schedule
from ser_scripts.training.seeding import derive

NUM_LABELS = 3
LINEAR = HeadSpec(relu=False)
MLP = HeadSpec(kind="mlp", hidden=8, dropout=0.2)
TRAINING = TrainingSpec(epochs=4, batch_size=16, scheduler="cosine", early_stopping=None, select="val_loss")


def world(
    seed: int = 0, clips: int = 150, layers: int = 3, width: int = 12
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings (N, L, D) whose layer 1 says most about the label."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, NUM_LABELS, clips)
    table = generator.normal(3.0, 2.0, (clips, layers, width)).astype(np.float32)
    table[:, 1, :NUM_LABELS] += 2.5 * np.eye(NUM_LABELS, dtype=np.float32)[labels]
    return table, labels


def job(number: int, layer: int | None = 1, **changes: float) -> HeadJob:
    order = np.random.default_rng(1000 + number).permutation(150)
    cut = 90 + 5 * (number % 4)
    weights = np.array([1.0, 0.5, 1.5], dtype=np.float32)
    return HeadJob(number, order[:cut], order[cut : cut + 30], weights, layer=layer, **changes)


def train(
    jobs: list[HeadJob], head: HeadSpec = LINEAR, training: TrainingSpec = TRAINING, workers: int = 1
) -> list[TrainedHead]:
    table, labels = world()
    return train_heads(
        table,
        labels,
        NUM_LABELS,
        jobs,
        head=head,
        loss=LossSpec(label_smoothing=0.1),
        training=training,
        workers=workers,
    )


def same(one: TrainedHead, other: TrainedHead) -> bool:
    equal = all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    return equal and one.weights.keys() == other.weights.keys() and one.history == other.history


@pytest.mark.parametrize("head", [LINEAR, MLP], ids=["linear", "mlp"])
@pytest.mark.parametrize("layer", [1, None], ids=["layer", "weighted"])
def test_a_training_gives_the_same_bits_alone_and_in_any_company(head: HeadSpec, layer: int | None) -> None:
    jobs = [job(number, layer) for number in range(GROUP + 5)]
    together = train(jobs, head, workers=2)
    backwards = train(jobs[::-1], head)[::-1]
    for number in (0, 7, GROUP, GROUP + 4):
        assert same(train([jobs[number]], head)[0], together[number])
        assert same(backwards[number], together[number])


@given(st.permutations(range(6)))
@settings(max_examples=5, deadline=None)
def test_the_order_of_trainings_does_not_matter(order: list[int]) -> None:
    jobs = [job(number) for number in range(6)]
    plain = train(jobs)
    shuffled = train([jobs[number] for number in order])
    for place, number in enumerate(order):
        assert same(shuffled[place], plain[number])


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "one_cycle"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_it_does_what_an_ordinary_training_loop_with_adamw_does(scheduler: str, kind: str) -> None:
    """The loop of a textbook: modules, torch's AdamW, the same clips in the same order from the same weights."""
    table, labels = world()
    head = HeadSpec(kind=kind, hidden=8, relu=kind == "linear")
    training = TRAINING.model_copy(update={"scheduler": scheduler, "select": "last"})
    one = job(3, weight_decay=0.05, learning_rate=5e-3)
    found = train_heads(
        table, labels, NUM_LABELS, [one], head=head, loss=LossSpec(label_smoothing=0.1), training=training
    )[0]

    own = torch.from_numpy(table[:, 1])
    train_rows = torch.from_numpy(one.train)
    own = (own - own[train_rows].mean(0)) / own[train_rows].std(0, correction=0)
    first = nn.Linear(12, 8) if kind == "mlp" else None
    last = nn.Linear(8 if first else 12, NUM_LABELS)
    with torch.no_grad():
        for module, names in ((first, ("w1", "b1")), (last, ("w", "b"))):
            for tensor, name in zip(module.parameters() if module else (), names, strict=False):
                bound = module.in_features**-0.5  # type: ignore[union-attr]
                shape = tensor.T.shape if name.startswith("w") else tensor.shape
                generator = torch.Generator().manual_seed(derive("init", one.seed, name))
                values = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                tensor.copy_(values.T if name.startswith("w") else values)
    modules = [module for module in (first, last) if module is not None]
    groups = [
        {"params": [m.weight for m in modules], "weight_decay": 0.05},
        {"params": [m.bias for m in modules], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=5e-3)
    truth = torch.from_numpy(labels)
    total = training.epochs * -(-len(one.train) // 16)
    warmup = int(np.ceil(0.1 * total))
    factor = schedule(training, 5e-3, total=int(total), warmup=warmup, per_epoch=int(total) // 4, history=[])
    step = 0
    for epoch in range(4):
        order = np.random.Generator(np.random.PCG64(derive("order", one.seed, epoch))).permutation(one.train)
        for start in range(0, len(order), 16):
            rows = torch.from_numpy(order[start : start + 16])
            for group in optimiser.param_groups:
                group["lr"] = 5e-3 * factor(step)
            hidden = nn.functional.gelu(first(own[rows])) if first else own[rows].relu()
            loss = cross_entropy(
                last(hidden), truth[rows], weights=torch.from_numpy(one.class_weights), label_smoothing=0.1
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([p for m in modules for p in m.parameters()], 1.0)
            optimiser.step()
            step += 1
    assert found.selected.step == step
    np.testing.assert_allclose(found.weights["w"], last.weight.detach().numpy().T, atol=1e-5)
    np.testing.assert_allclose(found.weights["b"], last.bias.detach().numpy(), atol=1e-5)


def test_the_layer_that_knows_the_label_wins_on_validation() -> None:
    training = TRAINING.model_copy(update={"epochs": 20})
    found = train([job(0, layer, learning_rate=1e-2) for layer in range(3)], training=training)
    assert int(np.argmin([head.selected.val_loss for head in found])) == 1
    weighted = train([job(0, None, learning_rate=3e-2)], training=training)[0]
    assert int(np.argmax(weighted.weights["layer_weights"])) == 1


def test_the_selected_weights_are_those_whose_validation_score_stands_in_the_history() -> None:
    table, labels = world()
    one = job(2, learning_rate=5e-2)
    training = TRAINING.model_copy(update={"epochs": 12, "select": "val_uar"})
    found = train_heads(table, labels, NUM_LABELS, [one], head=LINEAR, loss=LossSpec(), training=training)[0]
    logits = head_logits(table[one.validation], found.weights, 1, LINEAR)
    accuracy = float((logits.argmax(1) == labels[one.validation]).mean())
    assert accuracy == pytest.approx(found.selected.val_accuracy)
    assert found.selected.val_uar == max(row.val_uar for row in found.history)


def test_early_stopping_ends_one_training_and_not_its_neighbours() -> None:
    training = TRAINING.model_copy(
        update={"epochs": 30, "early_stopping": EarlyStoppingSpec(metric="val_loss", patience=2, min_delta=0.0)}
    )
    fast, slow = job(1, learning_rate=0.3), job(1, learning_rate=1e-4)
    found = train([fast, slow], training=training)
    assert len(found[0].history) < len(found[1].history) == 30
    assert same(found[0], train([fast], training=training)[0])


def test_a_loss_that_is_not_finite_is_said() -> None:
    table, labels = world()
    table[:5] = np.nan
    with pytest.raises(Finding, match="not finite"):
        train_heads(table, labels, NUM_LABELS, [job(0)], head=LINEAR, loss=LossSpec(), training=TRAINING)
