"""Mixup, CutMix, SpecAugment, soft targets: what a batch becomes before the model sees it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ser_scripts.augment import Augmenter
from ser_scripts.augment.mixing import Draw, draw_mix, mix, mix_targets
from ser_scripts.augment.spec_augment import check_features, spec_augment
from ser_scripts.errors import BadInput
from ser_scripts.modeling.families.base import Encoder
from ser_scripts.modeling.losses import class_weights, cross_entropy, soft_cross_entropy
from ser_scripts.specs.augmentation import AugmentationSpec, Cutmix, Mixup, SpecAugment
from ser_scripts.specs.base import parse
from ser_scripts.training.data import CHANGED, BatchKey, Clip, TrainingSet

MIXUP, CUTMIX = Mixup(kind="mixup"), Cutmix(kind="cutmix")
SOFT = {
    "seed": st.integers(0, 10_000),
    "size": st.integers(1, 12),
    "classes": st.integers(2, 9),
    "smoothing": st.sampled_from([0.0, 0.1, 0.37]),
    "weighted": st.booleans(),
    "num_items": st.sampled_from([None, 16]),
}


def problem(seed: int, size: int, classes: int, weighted: bool) -> tuple[torch.Tensor, torch.Tensor, Any]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator) * 4
    labels = torch.randint(classes, (size,), generator=generator)
    return logits, labels, torch.rand(classes, generator=generator) + 0.1 if weighted else None


@given(**SOFT)
def test_one_hot_targets_give_the_loss_of_hard_labels_to_the_last_bit(
    seed: int, size: int, classes: int, smoothing: float, weighted: bool, num_items: int | None
) -> None:
    logits, labels, weights = problem(seed, size, classes, weighted)
    targets = torch.nn.functional.one_hot(labels, classes).float()
    results = []
    for loss, towards in ((cross_entropy, labels), (soft_cross_entropy, targets)):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, towards, weights=weights, label_smoothing=smoothing, num_items=num_items)
        value.backward()
        results.append((value.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@given(**SOFT, share=st.floats(0, 1))
def test_the_loss_of_a_mix_is_the_mix_of_the_losses(
    seed: int, size: int, classes: int, smoothing: float, weighted: bool, num_items: int | None, share: float
) -> None:
    logits, labels, weights = problem(seed, size, classes, weighted)
    other = labels.roll(1)
    first, second = (torch.nn.functional.one_hot(x, classes).float() for x in (labels, other))
    settings = {"weights": weights, "label_smoothing": smoothing, "num_items": num_items}
    expected = share * cross_entropy(logits, labels, **settings) + (1 - share) * cross_entropy(
        logits, other, **settings
    )
    mixed = soft_cross_entropy(logits, share * first + (1 - share) * second, **settings)
    assert float(mixed) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


def test_the_soft_loss_of_a_known_case() -> None:
    loss = soft_cross_entropy(
        torch.zeros(1, 4), torch.tensor([[0.25, 0.75, 0.0, 0.0]]), weights=torch.tensor([2.0, 1, 1, 1])
    )
    assert float(loss) == pytest.approx((0.25 * 2 + 0.75) * np.log(4))


def test_weights_of_soft_counts_weigh_a_clip_by_one_on_average() -> None:
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    weights = class_weights(targets.sum(dim=0).tolist())
    assert float((targets * weights).sum()) == pytest.approx(3)
    with pytest.raises(BadInput, match="number 1 "):
        class_weights([1.5, 0.0])


CLIPS = st.lists(
    st.integers(1, 30).flatmap(lambda size: arrays.arrays(np.float32, (size, 2), elements=st.floats(-4, 4, width=32))),
    min_size=1,
    max_size=6,
)


@given(clips=CLIPS, spec=st.sampled_from([MIXUP, CUTMIX]), seed=st.integers(0, 99))
def test_a_share_of_one_is_the_clean_batch(clips: list[Any], spec: Mixup | Cutmix, seed: int) -> None:
    partners = tuple(int(x) for x in np.random.default_rng(seed).permutation(len(clips)))
    mixed, own = mix(spec, clips, Draw(1.0, partners, (0.5,) * len(clips)))
    assert all(np.array_equal(one, clip) for one, clip in zip(mixed, clips, strict=True))
    assert own == [1.0] * len(clips)
    targets = torch.eye(len(clips))
    assert torch.equal(mix_targets(targets, partners, own), targets)


@given(clips=CLIPS, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_mixup_is_as_long_as_the_longer_clip(clips: list[Any], share: float, seed: int) -> None:
    partners = tuple(int(x) for x in np.random.default_rng(seed).permutation(len(clips)))
    before = [clip.copy() for clip in clips]
    mixed, own = mix(MIXUP, clips, Draw(share, partners, (0.0,) * len(clips)))
    for number, partner in enumerate(partners):
        clip, other = clips[number], clips[partner]
        padded = [np.pad(x, ((0, max(len(clip), len(other)) - len(x)), (0, 0))) for x in (clip, other)]
        np.testing.assert_allclose(mixed[number], share * padded[0] + (1 - share) * padded[1], atol=1e-5)
        assert own[number] == (1.0 if partner == number else share)
    assert all(np.array_equal(a, b) for a, b in zip(before, clips, strict=True)), "clips are left as they are"


@given(clips=CLIPS, share=st.floats(0, 1), seed=st.integers(0, 99), place=st.floats(0, 1, exclude_max=True))
def test_cutmix_pastes_a_stretch_and_counts_what_it_replaced(
    clips: list[Any], share: float, seed: int, place: float
) -> None:
    clips = [np.full_like(clip, number) for number, clip in enumerate(clips)]
    partners = tuple(int(x) for x in np.random.default_rng(seed).permutation(len(clips)))
    mixed, own = mix(CUTMIX, clips, Draw(share, partners, (place,) * len(clips)))
    for number, partner in enumerate(partners):
        rows = mixed[number][:, 0]
        assert len(rows) == len(clips[number])
        assert set(rows) <= {number, partner}
        assert own[number] == pytest.approx(np.mean(rows == number))
        assert np.count_nonzero(np.diff(rows)) <= 2, "one stretch"
        if partner != number:
            shorter = min(len(clips[number]), len(clips[partner]))
            assert np.count_nonzero(rows == partner) == round((1 - share) * shorter)


def test_draws_of_a_batch() -> None:
    spec = Mixup(kind="mixup", alpha=0.4, probability=0.2)
    drawn = [draw_mix(spec, 8, seed=seed) for seed in range(3000)]
    assert drawn == [draw_mix(spec, 8, seed=seed) for seed in range(3000)]
    mixed = [one for one in drawn if one is not None]
    assert len(mixed) / 3000 == pytest.approx(0.2, abs=0.025)
    assert all(sorted(one.partners) == list(range(8)) for one in mixed)
    shares = np.array([one.share for one in mixed])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02), "Beta(.4, .4)"
    for seed in range(50):  # every item of a batch asks whether its batch is mixed, before the batch's size is known
        assert (draw_mix(spec, 8, seed=seed) is None) == (draw_mix(spec, 1, seed=seed) is None)


# SpecAugment


def masks(**keys: Any) -> SpecAugment:
    return SpecAugment.model_validate({"kind": "spec_augment", **keys})


FULL = {"num_time_masks": 2, "max_time_share": 0.1, "num_frequency_masks": 2, "max_frequency_bins": 8}


@given(
    rows=st.integers(1, 200), bins=st.integers(1, 40), stacked=st.integers(1, 3), seed=st.integers(0, 200),
    times=st.integers(0, 3), frequencies=st.integers(0, 3),
)  # fmt: skip
def test_masks_have_at_most_their_widths_and_nothing_else_changes(
    rows: int, bins: int, stacked: int, seed: int, times: int, frequencies: int
) -> None:
    if not times + frequencies:
        return
    spec = masks(
        num_time_masks=times, num_frequency_masks=frequencies, fill="zero",
        **({"max_time_share": 0.2, "max_time_frames": 15} if times else {}),
        **({"max_frequency_bins": 4} if frequencies else {}),
    )  # fmt: skip
    clean = np.ones((rows, bins * stacked), dtype=np.float32)
    masked = spec_augment(clean, spec, stacked=stacked, seed=seed)
    assert (clean == 1).all(), "the cached features are left as they are"
    frames = masked.reshape(rows, stacked, bins)
    assert (frames == frames[:, :1]).all(), "stacked frames are masked alike"
    whole_rows = (frames == 0).all(axis=(1, 2))
    whole_bins = (frames == 0).all(axis=(0, 1))
    assert ((frames == 0) == (whole_rows[:, None, None] | whole_bins)).all()
    if not whole_bins.all():
        assert whole_rows.sum() <= times * min(15, int(0.2 * rows), rows)
    if not whole_rows.all():
        assert whole_bins.sum() <= frequencies * min(4, bins)
    assert np.array_equal(masked, spec_augment(clean, spec, stacked=stacked, seed=seed))


def test_masks_are_drawn_uniformly_and_filled_with_the_mean() -> None:
    clean = np.random.default_rng(0).normal(3, 1, (100, 20)).astype(np.float32)
    spec = masks(num_time_masks=1, max_time_frames=10)
    widths = []
    for seed in range(2000):
        masked = spec_augment(clean, spec, stacked=1, seed=seed)
        rows = (masked != clean).all(axis=1)
        widths.append(int(rows.sum()))
        assert np.unique(masked[rows]).size <= 1
        if rows.any():
            assert masked[rows][0, 0] == pytest.approx(clean.mean())
    counts = np.bincount(widths, minlength=11)
    assert len(counts) == 11
    assert counts.min() > 2000 / 11 * 0.75
    never = masks(num_time_masks=1, max_time_frames=10, probability=0.25)
    assert sum(spec_augment(clean, never, stacked=1, seed=s) is clean for s in range(400)) == pytest.approx(300, abs=30)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "both 0"),
        ({"num_time_masks": 2}, "'num_time_masks' is 2: give 'max_time_frames', 'max_time_share' or both"),
        ({"num_time_masks": 1, "max_time_frames": 3, "max_frequency_bins": 2}, "take 'max_frequency_bins'"),
        ({"num_time_masks": 1, "max_time_share": 1.5}, "less than or equal to 1"),
        ({"num_time_mask": 1}, "did you mean 'num_time_masks'"),
    ],
)
def test_masks_that_make_no_sense_are_refused(keys: dict[str, Any], message: str) -> None:
    content = {"name": "a", "mode": "on_the_fly", "features": [{"kind": "spec_augment", **keys}]}
    with pytest.raises(BadInput, match=message):
        parse(AugmentationSpec, content, source="a.json", kind="augmentation")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"batch": {"kind": "mixup"}}, '"mode": "on_the_fly"'),
        ({"mode": "on_the_fly"}, "'transforms', 'features' or 'batch'"),
        ({"mode": "on_the_fly", "batch": {"kind": "mixp"}}, "did you mean 'mixup'"),
        ({"mode": "on_the_fly", "batch": {"kind": "mixup", "alpha": 0}}, "greater than 0"),
        ({"mode": "repeat", "copies": 2, "transforms": {"x": {"module": "a", "class": "B"}}}, "no 'transforms'"),
    ],
)
def test_augmentations_that_do_not_fit_their_mode_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(AugmentationSpec, {"name": "a", **content}, source="a.json", kind="augmentation")


def test_masks_on_samples_are_refused_with_the_reason() -> None:
    spec = AugmentationSpec.model_validate(
        {"name": "a", "mode": "on_the_fly", "features": [{"kind": "spec_augment", **FULL}]}
    )
    check_features(spec, (100, 80), "m")
    with pytest.raises(BadInput, match=r"model 'm' hears samples.*mask_time_prob"):
        check_features(spec, (16000,), "m")


# Batches of a training set

COUNT, LABELS = 10, 3


class FakeEncoder(SimpleNamespace):
    """Features of 4 bins per 10 samples, or the samples themselves."""

    sample_rate_hz = 1000
    stacked_frames = 1

    def features(self, samples: Any) -> Any:
        if self.raw:
            return np.asarray(samples, dtype=np.float32)
        return np.repeat(np.asarray(samples, dtype=np.float32)[: len(samples) // 10 * 10].reshape(-1, 10)[:, :1], 4, 1)

    def collate(self, features: Any) -> Any:
        return Encoder.collate(self, features)  # type: ignore[arg-type]


def training_set(raw: bool = False, targets: dict[int, Any] | None = None, **augmentation: Any) -> TrainingSet:
    draw = np.random.default_rng(0)
    store = {f"{n}.wav": draw.normal(0, 1, 200 + 10 * n).astype(np.float32) for n in range(COUNT)}
    clips = [Clip("c", f"{n}.wav", n % LABELS, (targets or {}).get(n)) for n in range(COUNT)]
    encoder = FakeEncoder(raw=raw)
    source = SimpleNamespace(
        clips=clips,
        encoder=encoder,
        samples=lambda index: store[clips[index].path],
        num_samples=lambda index: len(store[clips[index].path]),
        features=lambda index: encoder.features(store[clips[index].path]),
    )
    augmenter = None
    if augmentation:
        spec = AugmentationSpec.model_validate({"name": "a", "mode": "on_the_fly", **augmentation})
        augmenter = Augmenter(spec, seed=3, base=Path())
    return TrainingSet(source, seed=3, augmenter=augmenter, max_seconds=None, num_labels=LABELS)  # type: ignore[arg-type]


def batch(training: TrainingSet, number: int = 0, epoch: int = 0, items: range = range(6)) -> dict[str, Any]:
    return training.collate([training[BatchKey(epoch, number, item)] for item in items])


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if torch.is_tensor(one[key]) else one[key] == other[key] for key in one
    )


def test_a_clean_batch_has_labels_and_no_targets() -> None:
    made = batch(training_set())
    assert set(made) == {"inputs", "lengths", "labels", "epoch", "batch", "clean"}
    assert made["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    assert made["clean"].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch(training_set(batch={"kind": "mixup"}))["clean"].tolist() == [CHANGED] * 6


@pytest.mark.parametrize("level", ["features", "waveform"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_batches_are_mixed_by_seed_epoch_and_number_and_the_others_are_clean(kind: str, level: str) -> None:
    mixing = {"batch": {"kind": kind, "probability": 0.5, "level": level}}
    clean = batch(training_set())
    mixed = 0
    for number in range(30):
        made = batch(training_set(**mixing), number)
        assert same(made, batch(training_set(**mixing), number)), "what ran before does not count"
        assert made["epoch"] == 0
        assert made["batch"] == number
        if "targets" not in made:
            assert same({**made, "batch": 0}, clean), "a batch that is not mixed is the clean batch"
            continue
        mixed += 1
        assert torch.allclose(made["targets"].sum(dim=1), torch.ones(6))
        assert torch.equal(made["targets"].amax(dim=1), made["targets"].gather(1, made["labels"][:, None])[:, 0])
        assert (made["lengths"] >= clean["lengths"]).all()
        if kind == "cutmix":
            assert torch.equal(made["lengths"], clean["lengths"])
    assert 8 <= mixed <= 22
    epochs = [batch(training_set(**mixing), 0, epoch) for epoch in range(8)]
    assert len({str(made.get("targets")) for made in epochs}) > 2


def test_waveforms_and_features_mix_alike_where_features_are_linear() -> None:
    one, other = (batch(training_set(batch={"kind": "mixup", "level": level}), 4) for level in ("features", "waveform"))
    assert torch.equal(one["targets"], other["targets"])
    assert torch.allclose(one["inputs"], other["inputs"], atol=1e-6)
    assert torch.equal(one["lengths"], other["lengths"])


def test_masks_are_drawn_per_epoch_and_item_and_spare_the_kept_features() -> None:
    training = training_set(features=[{"kind": "spec_augment", "num_time_masks": 1, "max_time_share": 0.5}])
    clean = training_set()[BatchKey(0, 0, 4)]["features"]
    seen = [training[BatchKey(epoch, 0, 4)]["features"] for epoch in range(12)]
    assert len({one.tobytes() for one in seen}) > 6
    assert np.array_equal(training[BatchKey(5, 77, 4)]["features"], seen[5]), "the batch does not count"
    assert np.array_equal(training.source.features(4), clean)
    repeat = training_set(
        mode="repeat", copies=5, features=[{"kind": "spec_augment", "num_time_masks": 1, "max_time_share": 0.5}]
    )
    copies = {repeat[BatchKey(0, 0, item)]["features"].tobytes() for item in range(6)}
    assert len(copies) > 2, "copies of a clip are masked each on its own"


def test_masks_come_after_waveforms_are_mixed() -> None:
    masked = {"features": [{"kind": "spec_augment", "num_frequency_masks": 1, "max_frequency_bins": 4, "fill": "zero"}]}
    made = [
        batch(training_set(batch={"kind": "mixup", "level": "waveform"}, **masked), number)["inputs"]
        for number in range(6)
    ]
    assert any((one[0, :20] == 0).any(dim=1).all() and (one[0, :20] != 0).any() for one in made)


def test_votes_are_targets_and_the_dominant_label_is_what_accuracy_counts() -> None:
    targets = {0: (0.2, 0.8, 0.0), 2: (0.4, 0.2, 0.4)}
    made = batch(training_set(targets=targets))
    assert made["targets"].tolist() == pytest.approx(
        np.array([[0.2, 0.8, 0], [0, 1, 0], [0.4, 0.2, 0.4], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    )
    assert made["labels"].tolist() == [1, 1, 2, 0, 1, 2], "of equal shares the clip's own label counts"
    mixed = batch(training_set(targets=targets, batch={"kind": "mixup"}), 1)
    assert mixed["targets"].sum(dim=1).tolist() == pytest.approx([1] * 6)
