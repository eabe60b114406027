"""The parts of the training loop that decide: order of clips, selection, stopping, schedule."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import EarlyStoppingSpec, PlateauSpec, TrainingSpec
from ser_scripts.training.data import LengthGroupedBatches, sorted_batches
from ser_scripts.training.loop import (
    Evaluation,
    read_history,
    select,
    should_stop,
    softmax,
    write_history,
)
from ser_scripts.training.schedules import one_cycle, reductions, schedule
from ser_scripts.training.seeding import derive

ROW = Evaluation(1, 1.0, 1.5, 0.3, 1.4, 0.4, 0.4, 1e-3, 2.0)


def history(*uars, losses=None):
    losses = losses or [1.0] * len(uars)
    return [
        replace(ROW, step=i + 1, val_uar=uar, val_loss=loss)
        for i, (uar, loss) in enumerate(zip(uars, losses, strict=True))
    ]


def test_select_takes_the_first_best():
    assert select(history(0.3, 0.5, 0.5, 0.4), "val_uar") == 1
    assert select(history(0.3, 0.5, 0.5, 0.4), "last") == 3
    assert select(history(0, 0, 0, losses=[0.9, 0.7, 0.8]), "val_loss") == 1


def test_early_stopping_counts_evaluations_without_improvement():
    spec = EarlyStoppingSpec(metric="val_uar", patience=2, min_delta=0.01)
    assert not should_stop(history(0.3, 0.5, 0.505), spec)
    assert should_stop(history(0.3, 0.5, 0.505, 0.509), spec)
    assert not should_stop(history(0.3, 0.5, 0.505, 0.52), spec)
    assert not should_stop(history(*[0.1] * 50), None)
    loss = EarlyStoppingSpec(metric="val_loss", patience=1)
    assert should_stop(history(0, 0, losses=[0.5, 0.6]), loss)
    assert not should_stop(history(0, 0, losses=[0.5, 0.4]), loss)


@given(
    lengths=st.lists(st.integers(1, 100_000), min_size=1, max_size=300),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_batches_hold_every_item_once_and_depend_on_seed_and_epoch_only(lengths, batch_size, seed, epoch):
    sampler = LengthGroupedBatches(lengths, batch_size, seed=seed)
    sampler.set_epoch(epoch)
    np.random.seed(derive(len(lengths)))
    batches = [list(batch) for batch in sampler]
    assert sorted(key.item for batch in batches for key in batch) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert max(len(batch) for batch in batches) <= batch_size
    assert [key.batch for batch in batches for key in batch[:1]] == list(range(len(batches)))
    again = LengthGroupedBatches(lengths, batch_size, seed=seed)
    again.set_epoch(epoch)
    assert [list(batch) for batch in again] == batches


def test_batches_differ_between_epochs_and_group_lengths():
    lengths = np.random.default_rng(0).integers(10_000, 80_000, 400)
    sampler = LengthGroupedBatches(lengths, 8, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    spread = np.mean([np.ptp(lengths[[key.item for key in batch]]) for batch in first])
    assert spread < np.ptp(lengths) / 10


@given(st.lists(st.integers(1, 1000), max_size=60), st.integers(1, 9))
def test_sorted_batches_hold_every_index_once(lengths, batch_size):
    batches = sorted_batches(lengths, batch_size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)


def test_one_cycle_rises_to_one_and_falls_below_its_start():
    factors = [one_cycle(step, total=100, warmup=20) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 25)
    assert max(factors) == factors[20] == pytest.approx(1)
    assert factors[100] == pytest.approx(4e-6)
    assert all(a < b for a, b in itertools.pairwise(factors[:21]))
    assert all(a > b for a, b in itertools.pairwise(factors[20:]))


def factors(steps, rows=(), *, peak=1e-3, total=100, warmup=10, per_epoch=10, **training):
    spec = TrainingSpec.model_validate({"learning_rate": 1e-3, **training})
    factor = schedule(spec, peak, total=total, warmup=warmup, per_epoch=per_epoch, history=rows)
    return [factor(step) for step in steps]


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_schedules_are_those_of_transformers(name):
    import torch
    from transformers import get_scheduler

    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name, optimiser, num_warmup_steps=10, num_training_steps=100
    )
    expected = [theirs.lr_lambdas[0](step) for step in range(101)]
    assert factors(range(101), scheduler=name) == expected


def test_every_schedule_rises_from_nothing_over_the_warm_up():
    for name in ("linear", "cosine", "constant", "plateau", "step"):
        assert factors([0, 5, 10], scheduler=name) == [0, 0.5, 1]


def test_steps_are_counted_from_the_end_of_the_warm_up():
    step = {"epochs": 2, "factor": 0.1}
    made = factors([10, 29, 30, 49, 50], scheduler="step", step=step)
    assert made == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_plateau_lowers_the_rate_after_patience_evaluations_and_again():
    spec = PlateauSpec(patience=1, factor=0.5, min_delta=0.01)
    assert [reductions(history(0.5, *rest), spec) for rest in ([], [0.5], [0.5, 0.505])] == [0, 0, 1]
    assert reductions(history(0.5, 0.5, 0.5, 0.5, 0.5), spec) == 2
    assert reductions(history(0.5, 0.5, 0.6, 0.6, 0.6), spec) == 1
    loss = PlateauSpec(metric="val_loss", patience=0)
    assert reductions(history(0, 0, 0, losses=[0.9, 0.8, 0.85]), loss) == 1
    rows = history(0.5)
    settings = {"scheduler": "plateau", "plateau": {"patience": 0, "factor": 0.2}}
    assert factors([20], rows, **settings) == [1]
    rows += history(0.5)
    assert factors([20], rows, **settings) == [0.2]


def test_no_schedule_falls_below_the_least_rate():
    for name in ("linear", "cosine", "step", "plateau"):
        rows = history(*[0.5] * 50)
        step = {"epochs": 1} if name == "step" else None
        made = factors(range(10, 101), rows, scheduler=name, min_learning_rate=1e-4, step=step)
        assert min(made) == pytest.approx(0.1)
    assert factors([100], peak=1e-2, scheduler="linear", min_learning_rate=1e-4) == [0.01]
    assert factors([0], scheduler="linear", min_learning_rate=1e-4) == [0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"plateau": {}}, "'plateau' has no effect with the scheduler 'linear'"),
        ({"scheduler": "plateau", "step": {}}, "'step' has no effect with the scheduler 'plateau'"),
        ({"scheduler": "one_cycle", "min_learning_rate": 1e-6}, "'min_learning_rate' has no effect"),
        ({"min_learning_rate": 1e-2}, "'min_learning_rate' lies above 'learning_rate'"),
        ({"scheduler": "plateau", "plateau": {"patince": 3}}, "did you mean 'patience'"),
    ],
)
def test_settings_of_another_schedule_are_refused(content, said):
    with pytest.raises(BadInput, match=said):
        parse(TrainingSpec, content, source="m.json", kind="training")


def test_history_round_trip_is_exact(tmp_path):
    rows = [replace(ROW, step=i, val_loss=math.pi / (i + 3), train_loss=0.1 * i) for i in range(5)]
    write_history(tmp_path / "history.csv", rows)
    assert read_history(tmp_path / "history.csv") == rows


def test_softmax_is_stable():
    probabilities = softmax(np.array([[1e4, 0.0], [0.0, 0.0]], dtype=np.float32))
    assert probabilities[0] == pytest.approx([1, 0])
    assert probabilities[1] == pytest.approx([0.5, 0.5])


def test_derived_seeds_are_pinned():
    assert derive("batch", 0, 1, 2) == derive("batch", 0, 1, 2) == 4201293481
    assert derive("batch", 0, 12) != derive("batch", 0, 1, 2)


def test_long_training_clips_are_cut_by_seed_epoch_and_clip():
    from ser_scripts.training.data import BatchKey, Clip, TrainingSet

    samples = np.arange(1000, dtype=np.float32)
    store = SimpleNamespace(__getitem__=None)
    encoder = SimpleNamespace(sample_rate_hz=100, features=lambda clip: clip)
    source = SimpleNamespace(
        clips=[Clip("c", "a.wav", 0)],
        stores={"c": store},
        encoder=encoder,
        samples=lambda index: samples,
        num_samples=lambda index: len(samples),
        features=lambda index: samples,
    )
    cut = TrainingSet(source, seed=0, augmenter=None, max_seconds=2.0, num_labels=1)
    pieces = [cut[BatchKey(epoch, 0, 0)]["features"] for epoch in range(4)]
    assert all(len(piece) == 200 for piece in pieces)
    assert len({float(piece[0]) for piece in pieces}) > 1
    assert (cut[BatchKey(2, 9, 0)]["features"] == pieces[2]).all()
    assert cut.lengths() == [200]
    whole = TrainingSet(source, seed=0, augmenter=None, max_seconds=None, num_labels=1)
    assert len(whole[BatchKey(0, 0, 0)]["features"]) == 1000
