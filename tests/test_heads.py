"""Heads trained side by side: the same bits alone and in company, the same numbers as an ordinary training loop."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from ser_scripts.errors import Finding
from ser_scripts.modeling.losses import soft_cross_entropy
from ser_scripts.modeling.ratings import ratings_loss
from ser_scripts.specs.model import EarlyStoppingSpec, HeadSpec, LossSpec, TrainingSpec
from ser_scripts.training import heads
from ser_scripts.training.heads import Frames, HeadJob, Inputs, Rated, TrainedHead, head_logits, train_heads
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
    jobs: list[HeadJob],
    head: HeadSpec = LINEAR,
    training: TrainingSpec = TRAINING,
    workers: int | None = 1,
    rated: Rated | None = None,
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
        rated=rated,
        workers=workers,
    )


def same(one: TrainedHead, other: TrainedHead) -> bool:
    equal = all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    return equal and one.weights.keys() == other.weights.keys() and one.history == other.history


@pytest.mark.parametrize("head", [LINEAR, MLP], ids=["linear", "mlp"])
@pytest.mark.parametrize("layer", [1, None], ids=["layer", "weighted"])
def test_a_training_gives_the_same_bits_alone_and_in_any_company(head: HeadSpec, layer: int | None) -> None:
    jobs = [job(number, layer) for number in range(7)]
    together = train(jobs, head, workers=3)
    backwards = train(jobs[::-1], head)[::-1]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # of the process that asks: those that train have one each
    try:
        for number in (0, 3, 6):
            assert same(train([jobs[number]], head)[0], together[number])
            assert same(backwards[number], together[number])
    finally:
        torch.set_num_threads(threads)


def test_little_memory_means_fewer_trainings_at_once_and_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(number, None) for number in range(3)]
    table = torch.from_numpy(world()[0])
    before = train(jobs, MLP, workers=3)
    monkeypatch.setattr(heads, "MEMORY_BYTES", 2 * 140 * 3 * 12 * 4)
    assert heads._fitting(table, jobs) == 2
    monkeypatch.setattr(heads, "MEMORY_BYTES", 1)
    assert heads._fitting(table, jobs) == 1
    assert all(same(one, other) for one, other in zip(train(jobs, MLP, workers=3), before, strict=True))


@given(st.permutations(range(6)))
@settings(max_examples=5, deadline=None)
def test_the_order_of_trainings_does_not_matter(order: list[int]) -> None:
    jobs = [job(number) for number in range(6)]
    plain = train(jobs)
    shuffled = train([jobs[number] for number in order])
    for place, number in enumerate(order):
        assert same(shuffled[place], plain[number])


def test_more_linear_heads_than_go_into_a_group_with_dropout_and_unequal_stops() -> None:
    head = HeadSpec(dropout=0.3)
    training = TRAINING.model_copy(
        update={"epochs": 15, "early_stopping": EarlyStoppingSpec(metric="val_loss", patience=1, min_delta=0.0)}
    )
    jobs = [job(number, number % 3, learning_rate=0.05 if number % 2 else 0.01) for number in range(40)]
    together = train(jobs, head, training, workers=2)
    assert len({len(found.history) for found in together}) > 2
    for number in (0, 1, 17, 38, 39):
        assert same(train([jobs[number]], head, training)[0], together[number])


class Plain(nn.Module):
    """A head as anybody would write it; masks of dropout are given."""

    def __init__(self, head: HeadSpec, width: int, layers: int | None, outputs: int = NUM_LABELS) -> None:
        super().__init__()
        self.head = head
        self.layer_weights = nn.Parameter(torch.zeros(layers)) if layers else None
        inner = head.kind != "linear"
        self.first = nn.Linear(width, head.hidden) if inner else None
        frames = head.kind == "frame_mlp"
        self.norm = nn.LayerNorm(head.hidden if frames else width) if frames or head.layer_norm else nn.Identity()
        self.last = nn.Linear(head.hidden if inner else width, outputs)

    def start(self, seed: int, bounds: dict[str, float], prefix: str = "") -> None:
        for module, names in ((self.first, ("w1", "b1")), (self.last, ("w", "b"))):
            for tensor, name in zip(module.parameters() if module else (), names, strict=False):
                shape = tensor.T.shape if name.startswith("w") else tensor.shape
                generator = torch.Generator().manual_seed(derive("init", seed, prefix + name))
                bound = bounds.get(name, module.in_features**-0.5)  # type: ignore[union-attr]
                values = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                tensor.data.copy_(values.T if name.startswith("w") else values)
        if prefix:
            self.last.weight.data.mul_(0.1)
            self.last.bias.data.fill_(0.5)  # of ratings: the middle of the scale

    def forward(self, x: torch.Tensor, masks: list[torch.Tensor], lengths: list[int] | None = None) -> torch.Tensor:
        head = self.head
        if self.layer_weights is not None:
            x = (x * self.layer_weights.softmax(0)[None, :, None]).sum(1)
        if head.kind == "frame_mlp":
            assert self.first is not None
            assert lengths is not None
            hidden = nn.functional.gelu(self.norm(self.first(x)))
            logits = self.last(hidden * masks[0] if masks else hidden)
            return torch.stack([part.mean(0) for part in logits.split(lengths)])
        if head.layer_norm:
            x = self.norm(x)
        if head.kind == "linear" and head.relu:
            x = x.relu()
        x = x * masks[0] if masks else x
        if self.first is not None:
            x = self.first(x)
            x = {"gelu": nn.functional.gelu, "relu": torch.relu, "none": lambda y: y}[head.activation](x)
            x = x * masks[1] if masks else x
        return self.last(x)

    def l2(self) -> torch.Tensor:
        used = [p for name, p in self.named_parameters() if name != "layer_weights"]
        return sum((p.square().sum() for p in used), torch.zeros(()))


def ordinary(
    inputs: Inputs,
    one: HeadJob,
    head: HeadSpec,
    training: TrainingSpec,
    targets: NDArray[np.float32],
    bounds: dict[str, float] | None = None,
) -> Plain:
    """A head for classes alone, trained by `loop`."""
    return loop(inputs, one, head, training, targets, bounds)[""]


def loop(
    inputs: Inputs,
    one: HeadJob,
    head: HeadSpec,
    training: TrainingSpec,
    targets: NDArray[np.float32],
    bounds: dict[str, float] | None = None,
    rated: Rated | None = None,
) -> dict[str, Plain]:
    """The loop of a textbook: modules, autograd, torch's AdamW, the same clips in the same order.

    Gives the heads by the prefix of their weights; those of classes and of ratings share layer weights.
    """
    rows = torch.from_numpy(one.train)
    if isinstance(inputs, Frames):
        frames = [torch.from_numpy(inputs.values[a:b]).float() for a, b in pairwise(inputs.starts)]
        together = torch.cat([frames[row] for row in one.train]).double()
        clips = [(frame - together.mean(0)) / together.std(0, correction=0) for frame in frames]
        width, layers = inputs.values.shape[1], None
    else:
        own = torch.from_numpy(inputs) if one.layer is None else torch.from_numpy(inputs[:, one.layer])
        clips = list((own - own[rows].mean(0)) / own[rows].std(0, correction=0))
        width, layers = inputs.shape[2], inputs.shape[1] if one.layer is None else None
    models = {"": Plain(head, width, layers)} if rated is None or not rated.spec.only else {}
    if rated is not None:
        models["rating_"] = Plain(head, width, layers, rated.values.shape[1])
        models["rating_"].layer_weights = next(iter(models.values())).layer_weights
    for prefix, model in models.items():
        model.start(one.seed, bounds or {}, prefix)
    parameters = list(nn.ModuleList(models.values()).parameters())
    matrices = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": one.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=one.learning_rate)
    size = training.batch_size
    per_epoch = -(-len(one.train) // size)
    total = int(training.epochs * per_epoch)
    factor = schedule(
        training, one.learning_rate, total=total, warmup=int(np.ceil(0.1 * total)), per_epoch=per_epoch, history=[]
    )
    step = 0
    for epoch in range(int(training.epochs)):
        order = np.random.Generator(np.random.PCG64(derive("order", one.seed, epoch))).permutation(one.train)
        dropouts = {prefix: heads.Dropout(one.seed, epoch, head.dropout, prefix) for prefix in models}
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            for group in optimiser.param_groups:
                group["lr"] = one.learning_rate * factor(step)
            picked = [clips[row].float() for row in batch]
            lengths = [len(clip) for clip in picked] if isinstance(inputs, Frames) else None
            x = torch.cat(picked) if lengths else torch.stack(picked)
            widths = {"linear": [width], "mlp": [width, head.hidden], "frame_mlp": [head.hidden]}[head.kind]
            loss = torch.zeros(())
            for prefix, model in models.items():
                masks = [dropouts[prefix].mask(len(x), one_width) for one_width in widths] if head.dropout else []
                outputs = model(x, masks, lengths)
                loss = loss + head.l2 * model.l2()
                if prefix:
                    assert rated is not None
                    wanted = torch.from_numpy(rated.values[batch]).float()
                    loss = loss + rated.spec.weight * ratings_loss(outputs, wanted, rated.spec)
                else:
                    loss = loss + soft_cross_entropy(
                        outputs,
                        torch.from_numpy(targets[batch]),
                        weights=torch.from_numpy(one.class_weights),
                        label_smoothing=0.1,
                    )
            optimiser.zero_grad()
            loss.backward()
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            step += 1
    return models


def agree(found: TrainedHead, model: Plain) -> None:
    agree_all(found, {"": model})


def agree_all(found: TrainedHead, models: dict[str, Plain]) -> None:
    expected = {
        name if name == "layer_weights" else prefix + name: value
        for prefix, model in models.items()
        for name, value in weights_of(model, normed=f"{prefix}norm_w" in found.weights).items()
    }
    assert found.weights.keys() == {*expected, "mean", "scale"}
    for name, value in expected.items():
        np.testing.assert_allclose(found.weights[name], value.detach().numpy(), atol=1e-5, err_msg=name)


def weights_of(model: Plain, *, normed: bool) -> dict[str, torch.Tensor]:
    expected = {"w": model.last.weight.T, "b": model.last.bias}
    if model.first is not None:
        expected |= {"w1": model.first.weight.T, "b1": model.first.bias}
    if normed:
        expected |= {"norm_w": model.norm.weight, "norm_b": model.norm.bias}
    if model.layer_weights is not None:
        expected["layer_weights"] = model.layer_weights
    return expected


FORMS = {
    "linear": HeadSpec(),
    "linear-dropout": HeadSpec(dropout=0.3, l2=0.01),
    "linear-norm-dropout": HeadSpec(layer_norm=True, dropout=0.3),
    "linear-bare": HeadSpec(relu=False, l2=0.01),
    "mlp": HeadSpec(kind="mlp", hidden=8),
    "mlp-norm-dropout": HeadSpec(kind="mlp", hidden=8, layer_norm=True, dropout=0.3, l2=0.01),
    "mlp-relu": HeadSpec(kind="mlp", hidden=8, activation="relu", dropout=0.2),
    "mlp-none": HeadSpec(kind="mlp", hidden=8, activation="none"),
}


@pytest.mark.parametrize("layer", [1, None], ids=["layer", "weighted"])
@pytest.mark.parametrize("form", FORMS)
def test_it_does_what_an_ordinary_training_loop_with_adamw_does(form: str, layer: int | None) -> None:
    table, labels = world()
    training = TRAINING.model_copy(update={"select": "last"})
    one = job(3, layer, weight_decay=0.05, learning_rate=5e-3)
    found = train([one], FORMS[form], training)[0]
    assert found.selected.step == 4 * 7
    hard = np.eye(NUM_LABELS, dtype=np.float32)[labels]
    agree(found, ordinary(table, one, FORMS[form], training, hard))


@pytest.mark.parametrize("scheduler", ["linear", "constant", "one_cycle"])
def test_the_schedules_are_those_of_an_ordinary_loop(scheduler: str) -> None:
    table, labels = world()
    training = TRAINING.model_copy(update={"scheduler": scheduler, "select": "last"})
    one = job(2, learning_rate=5e-3)
    hard = np.eye(NUM_LABELS, dtype=np.float32)[labels]
    agree(train([one], LINEAR, training)[0], ordinary(table, one, LINEAR, training, hard))


def test_votes_are_targets_and_validation_stays_with_the_labels() -> None:
    table, labels = world()
    votes = np.random.default_rng(4).dirichlet([1.0] * NUM_LABELS, len(labels)).astype(np.float32)
    training = TRAINING.model_copy(update={"select": "last"})
    one = job(1, weight_decay=0.05)
    found = train_heads(
        table,
        labels,
        NUM_LABELS,
        [one],
        head=MLP,
        loss=LossSpec(label_smoothing=0.1, targets="votes"),
        training=training,
        targets=votes,
    )[0]
    agree(found, ordinary(table, one, MLP, training, votes))
    predicted = head_logits(table[one.validation], found.weights, 1, MLP).argmax(axis=1)
    assert found.history[-1].val_accuracy == pytest.approx((predicted == labels[one.validation]).mean())


def ragged(clips: int = 60, width: int = 6) -> tuple[Frames, NDArray[np.int64]]:
    """Frames of clips between 3 and 11 frames long, whose label shows in every second frame."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, NUM_LABELS, clips)
    lengths = generator.integers(3, 12, clips)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    values = generator.normal(2.0, 3.0, (starts[-1], width))
    for clip, label in enumerate(labels):
        values[starts[clip] : starts[clip + 1] : 2, label] += 8
    return Frames(values.astype(np.float16), starts), labels


FRAME_MLP = HeadSpec(kind="frame_mlp", hidden=8, dropout=0.1)


def frame_job(seed: int) -> HeadJob:
    order = np.random.default_rng(seed).permutation(60)
    weights = np.array([1.0, 0.5, 1.5], dtype=np.float32)
    return HeadJob(seed, order[:40], order[40:], weights, 0, learning_rate=1e-2, weight_decay=0.1)


def frame_train(jobs: list[HeadJob], frames: Frames, labels: NDArray[np.int64], **changes: object) -> list[TrainedHead]:
    training = TRAINING.model_copy(update={"select": "last", **changes})
    loss = LossSpec(label_smoothing=0.1)
    return train_heads(frames, labels, NUM_LABELS, jobs, head=FRAME_MLP, loss=loss, training=training)


def test_a_head_over_frames_does_what_an_ordinary_loop_does_with_the_mean_of_logits() -> None:
    frames, labels = ragged()
    one = frame_job(0)
    found = frame_train([one], frames, labels)[0]
    hard = np.eye(NUM_LABELS, dtype=np.float32)[labels]
    training = TRAINING.model_copy(update={"select": "last"})
    model = ordinary(frames, one, FRAME_MLP, training, hard, bounds={"w1": (6 / (6 + 8)) ** 0.5})
    agree(found, model)


def test_a_head_over_frames_learns_and_gives_the_same_bits_in_any_company() -> None:
    frames, labels = ragged()
    jobs = [frame_job(seed) for seed in range(3)]
    found = frame_train(jobs, frames, labels, epochs=60)
    assert same(frame_train([jobs[1]], frames, labels, epochs=60)[0], found[1])
    assert found[0].history[-1].val_accuracy > 0.8
    logits = head_logits(frames, found[0].weights, 0, FRAME_MLP)
    assert logits.shape == (60, NUM_LABELS)
    right = (logits.argmax(axis=1) == labels)[jobs[0].validation].mean()
    assert right == pytest.approx(found[0].history[-1].val_accuracy)
    alone = Frames(frames.values[frames.starts[7] : frames.starts[8]], frames.starts[7:9] - frames.starts[7])
    np.testing.assert_allclose(head_logits(alone, found[0].weights, 0, FRAME_MLP)[0], logits[7], atol=1e-6)


@given(st.floats(0.01, 0.95), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_dropout_keeps_its_share_and_the_mean(share: float, seed: int) -> None:
    mask = heads.Dropout(seed, 0, share).mask(200, 501)
    kept = (mask > 0).float().mean().item()
    assert abs(kept - (1 - share)) < 0.01
    np.testing.assert_allclose(mask.unique(), [0, 1 / (1 - share)], rtol=1e-6)
    assert torch.equal(mask, heads.Dropout(seed, 0, share).mask(200, 501))
    assert not torch.equal(mask, heads.Dropout(seed, 1, share).mask(200, 501))


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
