"""From clip stores to batches: what is read, in which order, and how it is made one tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ser_scripts.audio.store import ClipStore
from ser_scripts.augment import Augmenter
from ser_scripts.modeling.families.base import Encoder
from ser_scripts.training.seeding import derive

FEATURE_MEMORY_BYTES = 1 << 29
"""Features of clean whole clips are kept in memory up to this size; beyond it they are computed anew."""

MEGABATCH = 32
"""Clips are sorted by length within chunks of this many batches: little padding, and still a random order."""


@dataclass(frozen=True)
class Clip:
    """One clip with the index of its label (-1: a label that the task does not have)."""

    corpus: str
    path: str
    label: int


def extract(encoder: Encoder, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of one clip, on one thread: more threads give other bits, and loader processes have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return encoder.features(samples)
    finally:
        torch.set_num_threads(threads)


@dataclass
class FeatureSource:
    """Features of clips, before padding: float32 arrays whose first axis is time."""

    clips: Sequence[Clip]
    stores: Mapping[str, ClipStore]
    encoder: Encoder
    _kept: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    _kept_bytes: int = 0

    def samples(self, index: int) -> NDArray[np.float32]:
        """The decoded, preprocessed samples of a clip at the encoder's rate."""
        clip = self.clips[index]
        return self.stores[clip.corpus][clip.path]

    def num_samples(self, index: int) -> int:
        """Length of a clip in samples, without reading it."""
        clip = self.clips[index]
        return self.stores[clip.corpus].num_samples(clip.path)

    def features(self, index: int) -> NDArray[np.float32]:
        """Features of the whole clean clip, kept in memory while there is room."""
        if index in self._kept:
            return self._kept[index]
        features = extract(self.encoder, self.samples(index))
        if self._kept_bytes + features.nbytes <= FEATURE_MEMORY_BYTES:
            self._kept[index] = features
            self._kept_bytes += features.nbytes
        return features


@dataclass(frozen=True)
class BatchKey:
    """Names one item of one batch; all randomness of a batch derives from its epoch and index."""

    epoch: int
    batch: int
    item: int


class TrainingSet(Dataset[dict[str, Any]]):
    """The items of an epoch: clean clips and, as the augmentation says, copies of them."""

    def __init__(self, source: FeatureSource, *, seed: int, augmenter: Augmenter | None, max_seconds: float | None):
        self.source = source
        self.seed = seed
        self.augmenter = augmenter
        self.max_samples = None if max_seconds is None else int(max_seconds * source.encoder.sample_rate_hz)
        count = len(source.clips)
        self.items: list[tuple[int, str | None]] = (
            augmenter.plan(count) if augmenter else [(i, None) for i in range(count)]
        )

    def __len__(self) -> int:
        return len(self.items)

    def lengths(self) -> list[int]:
        """Samples per item, for grouping by length."""
        longest = self.max_samples if self.max_samples is not None else np.iinfo(np.int64).max
        return [min(self.source.num_samples(index), longest) for index, _ in self.items]

    def __getitem__(self, key: BatchKey) -> dict[str, Any]:
        index, transform = self.items[key.item]
        clip = self.source.clips[index]
        name = f"{clip.corpus}/{clip.path}"
        too_long = self.max_samples is not None and self.source.num_samples(index) > self.max_samples
        clean = self.augmenter is None or (transform is None and self.augmenter.spec.mode != "on_the_fly")
        if clean and not too_long:
            features = self.source.features(index)
        else:
            samples = self.source.samples(index)
            if self.augmenter is not None and not clean:
                rate_hz = self.source.encoder.sample_rate_hz
                samples = self.augmenter.apply(samples, rate_hz, transform, epoch=key.epoch, clip_key=name)
            if self.max_samples is not None and len(samples) > self.max_samples:
                room = len(samples) - self.max_samples + 1
                start = derive("cut", self.seed, key.epoch, name, key.item) % room
                samples = samples[start : start + self.max_samples]
            features = extract(self.source.encoder, np.ascontiguousarray(samples))
        return {"features": features, "label": clip.label, "key": key}


class LengthGroupedBatches(Sampler[list[BatchKey]]):
    """Batches of clips of like length, a pure function of (seed, epoch).

    The items are shuffled, sorted by length within chunks of `MEGABATCH` batches, cut into batches, and the batches are
    shuffled again. transformers' own length grouping draws from the global generator instead, so that its order depends
    on what else has drawn numbers.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose batches the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[BatchKey]]:
        generator = np.random.Generator(np.random.PCG64(derive("order", self.seed, self.epoch)))
        order = generator.permutation(len(self.lengths))
        batches: list[NDArray[np.int64]] = []
        chunk = self.batch_size * MEGABATCH
        for start in range(0, len(order), chunk):
            part = order[start : start + chunk]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        for number, batch in enumerate(generator.permutation(len(batches))):
            yield [BatchKey(self.epoch, number, int(item)) for item in batches[batch]]


class EpochLoader(DataLoader[dict[str, Any]]):
    """A data loader that tells its batch sampler the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        assert isinstance(self.batch_sampler, LengthGroupedBatches)
        self.batch_sampler.set_epoch(epoch)


def collate(encoder: Encoder, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pad the features of a batch; `batch` is its number within the epoch, `epoch` the epoch."""
    batch: dict[str, Any] = dict(encoder.collate([row["features"] for row in rows]))
    batch["labels"] = torch.tensor([row["label"] for row in rows])
    batch["epoch"], batch["batch"] = rows[0]["key"].epoch, rows[0]["key"].batch
    return batch


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of like length, longest first, ties by index; every index exactly once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
