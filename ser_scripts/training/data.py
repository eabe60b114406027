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
from ser_scripts.augment.mixing import Draw, draw_mix, mix, mix_targets
from ser_scripts.augment.spec_augment import spec_augment
from ser_scripts.modeling.families.base import Encoder
from ser_scripts.training.seeding import derive

FEATURE_MEMORY_BYTES = 1 << 29
"""Features of clean whole clips are kept in memory up to this size; beyond it they are computed anew."""

MEGABATCH = 32
"""Clips are sorted by length within chunks of this many batches: little padding, and still a random order."""

CHANGED = -1
"""In place of the number of a clip: features that are not those of the whole clean clip."""


@dataclass(frozen=True)
class Clip:
    """One clip with the index of its label (-1: a label that the task does not have)."""

    corpus: str
    path: str
    label: int
    target: tuple[float, ...] | None = None
    """The distribution over the K labels to train towards; the label alone when None."""
    ratings: tuple[float, ...] | None = None
    """Ratings in [0, 1], NaN where there is none; None for a model without ratings."""
    adversary: int | None = None
    """What an adversary is to tell, -1 where the clip does not count; None without one."""


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

    def name(self, index: int, start: int = 0, stop: int | None = None) -> tuple[str, str, int, int]:
        """What tells a stretch of a clip (the whole one at first) from all others: corpus, path, start and stop."""
        clip = self.clips[index]
        return clip.corpus, clip.path, start, self.num_samples(index) if stop is None else stop

    def num_samples(self, index: int) -> int:
        """Length of a clip in samples, without reading it."""
        clip = self.clips[index]
        return self.stores[clip.corpus].num_samples(clip.path)

    def pieces(self, window_seconds: float | None) -> list[tuple[int, int, int]]:
        """What is heard at once, in the order of the clips: (index, start, stop) in samples."""
        window = None if window_seconds is None else int(window_seconds * self.encoder.sample_rate_hz)
        return [
            (index, start, stop)
            for index in range(len(self.clips))
            for start, stop in windows(self.num_samples(index), window)
        ]

    def piece(self, index: int, start: int, stop: int) -> NDArray[np.float32]:
        """Features of a stretch of a clean clip."""
        if (start, stop) == (0, self.num_samples(index)):
            return self.features(index)
        return extract(self.encoder, np.ascontiguousarray(self.samples(index)[start:stop]))

    def features(self, index: int) -> NDArray[np.float32]:
        """Features of the whole clean clip, kept in memory while there is room."""
        if index in self._kept:
            return self._kept[index]
        features = extract(self.encoder, self.samples(index))
        if self._kept_bytes + features.nbytes <= FEATURE_MEMORY_BYTES:
            self._kept[index] = features
            self._kept_bytes += features.nbytes
        return features


def windows(length: int, window: int | None) -> list[tuple[int, int]]:
    """Where a clip is heard: whole, or in windows of one length that begin at its start, end at its end, and overlap.

    Neighbours lie at even distances, two thirds of a window at most, so that each window stands for the same duration.

    Args:
        length: samples of the clip
        window: samples of a window; None for no limit
    """
    if window is None or length <= window:
        return [(0, length)]
    count = -(-(length - window) // max(1, window * 2 // 3)) + 1
    starts = [(length - window) * number // (count - 1) for number in range(count)]
    return [(start, start + window) for start in starts]


@dataclass(frozen=True)
class BatchKey:
    """Names one item of one batch; all randomness of a batch derives from its epoch and index."""

    epoch: int
    batch: int
    item: int


class TrainingSet(Dataset[dict[str, Any]]):
    """The items of an epoch: clean clips and, as the augmentation says, copies of them; and how they become batches."""

    def __init__(
        self,
        source: FeatureSource,
        *,
        seed: int,
        augmenter: Augmenter | None,
        max_seconds: float | None,
        num_labels: int,
    ):
        """Plan the items.

        Args:
            source: the training clips
            seed: of all draws
            augmenter: None for clean clips
            max_seconds: longer clips are cut
            num_labels: K
        """
        self.source = source
        self.seed = seed
        self.augmenter = augmenter
        self.max_samples = None if max_seconds is None else int(max_seconds * source.encoder.sample_rate_hz)
        self.num_labels = num_labels
        self._masks = augmenter.spec.features if augmenter else ()
        self._mix = augmenter.spec.batch if augmenter else None
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
        """One item: its features, or its samples where `collate` mixes the samples of this batch."""
        index = self.items[key.item][0]
        clip = self.source.clips[index]
        row: dict[str, Any] = {"label": clip.label, "target": clip.target, "key": key}
        row |= {"ratings": clip.ratings, "adversary": clip.adversary}
        if self._mix is not None and self._mix.level == "waveform" and self.draw(key.epoch, key.batch, 1) is not None:
            return {"samples": self.samples(key), **row}
        samples = self._changed_samples(key)
        features = self.source.features(index) if samples is None else self._extract(samples)
        row["clean"] = index if samples is None and not self._masks else CHANGED
        return {"features": self.masked(features, key), **row}

    def samples(self, key: BatchKey) -> NDArray[np.float32]:
        """What an item sounds like: the samples of its clip, augmented and cut."""
        samples = self._changed_samples(key)
        return self.source.samples(self.items[key.item][0]) if samples is None else samples

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Mix the clips of a batch where the augmentation says so, and pad their features.

        Returns:
            what `encoder.collate` gives; `labels` (B,); `targets` (B, K) where they are not the labels alone, `labels`
            then being where each is largest (the clip's own label, when it is among several); `ratings` (B, D), NaN
            where a clip (or its partner in a mix) has none, and `adversaries` (B,), where the clips have them;
            `clean` (B,), the clip that a row is, whole and unchanged, or `CHANGED`; `batch`, the number within the
            epoch, and `epoch`
        """
        first: BatchKey = rows[0]["key"]
        drawn = self.draw(first.epoch, first.batch, len(rows))
        labels = torch.tensor([row["label"] for row in rows])
        soft = drawn is not None or any(row["target"] is not None for row in rows)
        targets = self._targets(rows, labels) if soft else None
        rated = rows[0]["ratings"] is not None
        ratings = torch.tensor([row["ratings"] for row in rows], dtype=torch.float32) if rated else None
        if drawn is None:
            features = [row["features"] for row in rows]
        else:
            assert self._mix is not None
            assert targets is not None
            part = "samples" if self._mix.level == "waveform" else "features"
            features, own = mix(self._mix, [row[part] for row in rows], drawn)
            if part == "samples":
                features = [
                    self.masked(self._extract(one), row["key"]) for one, row in zip(features, rows, strict=True)
                ]
            targets = mix_targets(targets, drawn.partners, own)
            ratings = None if ratings is None else mix_targets(ratings, drawn.partners, own)
        batch: dict[str, Any] = dict(self.source.encoder.collate(features))
        batch["labels"] = labels
        if targets is not None:
            is_largest = targets.gather(1, labels[:, None])[:, 0] == targets.amax(dim=1)
            batch["labels"], batch["targets"] = torch.where(is_largest, labels, targets.argmax(dim=1)), targets
        if ratings is not None:
            batch["ratings"] = ratings
        if rows[0]["adversary"] is not None:
            batch["adversaries"] = torch.tensor([row["adversary"] for row in rows])
        batch["clean"] = torch.tensor([row["clean"] if drawn is None else CHANGED for row in rows])
        batch["epoch"], batch["batch"] = first.epoch, first.batch
        return batch

    def _changed_samples(self, key: BatchKey) -> NDArray[np.float32] | None:
        """Augmented or cut samples of an item; None where it is the whole clean clip."""
        index, transform = self.items[key.item]
        name = self._name(index)
        too_long = self.max_samples is not None and self.source.num_samples(index) > self.max_samples
        changes = transform is not None or (
            self.augmenter is not None and bool(self.augmenter.applied(epoch=key.epoch, clip_key=name))
        )
        if not changes and not too_long:
            return None
        samples = self.source.samples(index)
        if changes:
            assert self.augmenter is not None
            rate_hz = self.source.encoder.sample_rate_hz
            samples = self.augmenter.apply(samples, rate_hz, transform, epoch=key.epoch, clip_key=name)
        if self.max_samples is not None and len(samples) > self.max_samples:
            room = len(samples) - self.max_samples + 1
            start = derive("cut", self.seed, key.epoch, name, key.item) % room
            samples = samples[start : start + self.max_samples]
        return samples

    def _extract(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return extract(self.source.encoder, np.ascontiguousarray(samples))

    def masked(self, features: NDArray[np.float32], key: BatchKey) -> NDArray[np.float32]:
        """SpecAugment, drawn per epoch and item."""
        name = self._name(self.items[key.item][0])
        for number, spec in enumerate(self._masks):
            seed = derive("spec_augment", self.seed, key.epoch, name, key.item, number)
            features = spec_augment(features, spec, stacked=self.source.encoder.stacked_frames, seed=seed)
        return features

    def draw(self, epoch: int, batch: int, size: int) -> Draw | None:
        """The mix of a batch; whether there is one does not depend on its size."""
        if self._mix is None:
            return None
        return draw_mix(self._mix, size, seed=derive("mix", self.seed, epoch, batch))

    def _targets(self, rows: Sequence[Mapping[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """Targets (B, K), float32: those of the clips, or one-hot."""
        targets = torch.nn.functional.one_hot(labels, self.num_labels).to(torch.float32)
        for target, row in zip(targets, rows, strict=True):
            if row["target"] is not None:
                target[:] = torch.tensor(row["target"], dtype=torch.float32)
        return targets

    def _name(self, index: int) -> str:
        clip = self.source.clips[index]
        return f"{clip.corpus}/{clip.path}"


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


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of like length, longest first, ties by index; every index exactly once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
