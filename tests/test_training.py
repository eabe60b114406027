"""The parts of the training loop that decide: order of clips, selection, stopping, schedule."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.specs.model import EarlyStoppingSpec
from ser_scripts.training.data import LengthGroupedBatches, sorted_batches
from ser_scripts.training.loop import (
    Evaluation,
    one_cycle,
    read_history,
    select,
    should_stop,
    softmax,
    write_history,
)
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
    cut = TrainingSet(source, seed=0, augmenter=None, max_seconds=2.0)
    pieces = [cut[BatchKey(epoch, 0, 0)]["features"] for epoch in range(4)]
    assert all(len(piece) == 200 for piece in pieces)
    assert len({float(piece[0]) for piece in pieces}) > 1
    assert (cut[BatchKey(2, 9, 0)]["features"] == pieces[2]).all()
    assert cut.lengths() == [200]
    whole = TrainingSet(source, seed=0, augmenter=None, max_seconds=None)
    assert len(whole[BatchKey(0, 0, 0)]["features"]) == 1000
