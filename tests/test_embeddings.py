"""The embedding cache: computed once, found by content, whole after a kill, the same values whoever computes them."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ser_scripts.errors import BadInput, Finding
from ser_scripts.features import embeddings
from ser_scripts.features.embeddings import Embeddings, Kept, clip_key, folder_of, open_embeddings, read_index, verify
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.specs.model import PretrainedEncoder, RandomEncoder

CONFIG = {
    "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
    "num_mel_bins": 80,
}  # fmt: skip
IDENTITY = {"name": "openai/tiny", "sha256": "0" * 64, "dtype": "float32"}
ALL = Kept("pooled", ("mean", "std", "max"))


def encoder() -> Any:
    torch.manual_seed(0)
    return build_encoder(RandomEncoder(kind="random", config=CONFIG), models=None)


def clips(number: int = 12) -> list[NDArray[np.float32]]:
    return [np.random.default_rng(n).normal(0, 0.1, 3000 + 700 * (n % 5)).astype(np.float32) for n in range(number)]


def opened(
    cache: Path, wanted: list[NDArray[np.float32]], kept: Kept = ALL, build: Callable[[], Any] = encoder, **options: Any
) -> Embeddings:
    return open_embeddings(wanted, [clip_key(c) for c in wanted], IDENTITY, kept, cache, build, **options)


def never() -> Any:
    pytest.fail("the encoder was built although everything was cached")


def direct(clip: NDArray[np.float32]) -> torch.Tensor:
    """All hidden states of one clip, (L, T, D)."""
    one = encoder().eval()
    with torch.inference_mode():
        batch = one.collate([one.features(clip)])
        return torch.stack([state[0] for state in one(**batch)[0]])


def test_pooled_values_are_those_of_the_encoder(tmp_path: Path) -> None:
    wanted = clips(3)
    found = opened(tmp_path, wanted)
    assert found.shape == (3, 3, 16)
    for clip in wanted:
        states = direct(clip)
        expected = torch.stack([states.mean(1), states.std(1, correction=0), states.amax(1)], dim=1)
        np.testing.assert_allclose(found[clip_key(clip)], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.table([clip_key(c) for c in wanted])[1], found[clip_key(wanted[1])])


def test_frames_are_those_of_the_chosen_layers_in_half_precision(tmp_path: Path) -> None:
    wanted = clips(3)
    found = opened(tmp_path, wanted, Kept("frames", layers=(2, 1)))
    for clip in wanted:
        frames, states = found[clip_key(clip)], direct(clip)
        assert frames.dtype == np.float16
        assert frames.shape == (states.shape[1], 2, 16)
        np.testing.assert_allclose(frames[:, 0], states[2], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(frames[:, 1], states[1], rtol=1e-3, atol=1e-3)


def test_what_is_cached_is_not_computed_again_whatever_its_order_and_company(tmp_path: Path) -> None:
    wanted = clips()
    before = opened(tmp_path, wanted)
    again = opened(tmp_path, wanted[::-1][:5], build=never)
    for clip in wanted[::-1][:5]:
        np.testing.assert_array_equal(again[clip_key(clip)], before[clip_key(clip)])


def test_only_what_is_missing_is_computed_and_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, counted = clips(), []
    original = embeddings._one
    monkeypatch.setattr(embeddings, "_one", lambda *a: counted.append(1) or original(*a))
    whole = opened(tmp_path / "whole", wanted)
    counted.clear()
    opened(tmp_path / "parts", wanted[3:7])
    parts = opened(tmp_path / "parts", wanted, workers=2)
    assert len(counted) == len(wanted)
    for clip in wanted:
        np.testing.assert_array_equal(parts[clip_key(clip)], whole[clip_key(clip)])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_neither_workers_nor_torch_threads_change_a_bit(tmp_path: Path, workers: int) -> None:
    wanted = clips(8)
    threads = torch.get_num_threads()
    reference = opened(tmp_path / "one", wanted, workers=1)
    try:
        torch.set_num_threads(2)
        other = opened(tmp_path / "other", wanted, workers=workers)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for clip in wanted:
        np.testing.assert_array_equal(reference[clip_key(clip)], other[clip_key(clip)])


@pytest.mark.parametrize("kept", [ALL, Kept("frames", layers=(2, 0))], ids=["pooled", "frames"])
def test_in_batches_a_clip_has_the_values_that_it_has_alone(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; `cpu:0` is a device of its own, so that the batches can be tried here."""
    sizes: list[int] = []
    original = embeddings._several
    monkeypatch.setattr(embeddings, "_several", lambda e, c, *a: sizes.append(len(c)) or original(e, c, *a))
    monkeypatch.setattr(embeddings, "BATCH_SECONDS", 1.5)
    wanted = clips(11)
    alone = opened(tmp_path, wanted, kept)
    assert set(sizes) == {1}
    sizes.clear()
    together = opened(tmp_path, wanted, kept, device="cpu:0")
    assert together.folder != alone.folder
    assert sum(sizes) == 11
    assert max(sizes) > 2
    for clip in wanted:
        one, other = alone[clip_key(clip)].astype(float), together[clip_key(clip)].astype(float)
        np.testing.assert_allclose(one, other, atol=1e-5 if kept is ALL else 4e-3)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, most, said = embeddings._several, 3, list[str]()

    def small(encoder: Any, some: Any, *rest: Any) -> Any:
        if len(some) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(encoder, some, *rest)

    monkeypatch.setattr(embeddings, "_several", small)
    wanted = clips(11)
    found = opened(tmp_path, wanted, device="cpu:0", report=said.append)
    for clip in wanted:
        truth = direct(clip)
        np.testing.assert_allclose(found[clip_key(clip)][:, 0], truth.mean(dim=1), atol=1e-5)
    assert said[0] == (
        "out of memory: 11 clips of up to 0.4 s at once do not fit in embedding; from here on 2.2 s of sound at once"
    )
    assert len(said) <= 4  # batches to come are as small, and do not fail first
    most = 0
    with pytest.raises(Finding, match=r"a clip of 0\.\d s does not fit into the memory of 'cpu:0'; use --device cpu"):
        opened(tmp_path / "other", wanted, device="cpu:0")

    def broken(*anything: Any) -> Any:
        raise RuntimeError("another fault")

    monkeypatch.setattr(embeddings, "_several", broken)
    with pytest.raises(RuntimeError, match="another fault"):
        opened(tmp_path / "third", wanted, device="cpu:0")


@given(st.lists(st.integers(1, 5000), max_size=60), st.integers(1, 9000))
def test_batches_hold_every_clip_once_and_no_more_than_fits(lengths: list[int], limit: int) -> None:
    lengths = sorted(lengths, reverse=True)
    made = embeddings.batches(lengths, limit)
    assert [number for batch in made for number in batch] == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= limit


@pytest.mark.real
@pytest.mark.parametrize("name", ["openai/whisper-tiny.en", "UsefulSensors/moonshine-tiny"])
def test_real_encoders_give_a_clip_its_own_values_in_a_batch(name: str, ser_data: Path, ser_models: Path) -> None:
    files = sorted((ser_data / "emodb").rglob("*.flac"))[:120:40]
    samples = [soundfile.read(file, dtype="float32")[0] for file in files]
    real = build_encoder(PretrainedEncoder(model_path_or_name=name), models=ser_models).eval()
    together = embeddings._several(real, samples, ALL, "cpu")
    for clip, found in zip(samples, together, strict=True):
        alone = embeddings._one(real, clip, ALL, "cpu")
        np.testing.assert_allclose(found, alone, atol=1e-3 * float(np.abs(alone).max()))


def test_a_shared_clip_is_embedded_once(tmp_path: Path) -> None:
    one, other = clips(2)
    found = opened(tmp_path, [one, other, one.copy()])
    (index,) = found.folder.glob("*.json")
    assert len(read_index(index)["clips"]) == 2


def test_shards_never_one_file_per_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SHARD_CLIPS", 5)
    found = opened(tmp_path, clips(12))
    assert len(list(found.folder.glob("*.bin"))) == 3
    assert verify(found.folder) == []


def test_another_encoder_chain_or_content_has_another_place(tmp_path: Path) -> None:
    places = {
        folder_of(tmp_path, identity, kept, device)
        for identity in (IDENTITY, {**IDENTITY, "sha256": "1" * 64}, {**IDENTITY, "dtype": "float16"})
        for kept in (ALL, Kept("pooled"), Kept("frames", layers=(1,)), Kept("frames", layers=(2,)))
        for device in ("cpu", "cuda")
    }
    assert len(places) == 24
    assert clip_key(clips(1)[0]) != clip_key(clips(1)[0][:-1])


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    found = opened(tmp_path, clips(4))
    (data,) = found.folder.glob("*.bin")
    content = bytearray(data.read_bytes())
    content[7] ^= 1
    data.write_bytes(content)
    assert verify(found.folder) == [data.with_suffix(".json")]
    data.write_bytes(content[:-4])
    with pytest.raises(Finding, match=r"is damaged; delete it and its \.bin"):
        opened(tmp_path, clips(4))


def test_an_altered_index_is_named(tmp_path: Path) -> None:
    found = opened(tmp_path, clips(4))
    (index,) = found.folder.glob("*.json")
    content = json.loads(index.read_text())
    content["index"]["clips"][0][1] = 1
    index.write_text(json.dumps(content))
    with pytest.raises(Finding, match="is damaged"):
        Embeddings(found.folder)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write to the cache folder"):
        opened(tmp_path, clips(1))


def _slow(cache: Path) -> None:
    """Wait to be killed in the middle of the second shard."""
    original = embeddings._one
    done: list[int] = []

    def one(*arguments: Any) -> Any:
        if len(done) == 6:
            time.sleep(120)
        done.append(1)
        return original(*arguments)

    embeddings._one, embeddings.SHARD_CLIPS = one, 4  # type: ignore[assignment]
    opened(cache, clips(12), workers=1)


def test_a_killed_process_leaves_whole_shards_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = multiprocessing.get_context("fork").Process(target=_slow, args=(tmp_path,))
    process.start()
    assert process.pid is not None
    for _ in range(600):
        if list(tmp_path.glob("embeddings/*/*.json")):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = len(Embeddings(next(tmp_path.glob("embeddings/*-pooled-*/")))._places)
    assert 4 <= kept < 12
    monkeypatch.setattr(embeddings, "SHARD_CLIPS", 4)
    counted: list[int] = []
    original = embeddings._one
    monkeypatch.setattr(embeddings, "_one", lambda *a: counted.append(1) or original(*a))
    found = opened(tmp_path, clips(12))
    assert len(counted) == 12 - kept
    fresh = opened(tmp_path / "fresh", clips(12))
    for clip in clips(12):
        np.testing.assert_array_equal(found[clip_key(clip)], fresh[clip_key(clip)])


def _count(cache: Path) -> None:
    original = embeddings._one

    def one(*arguments: Any) -> Any:
        with (cache / f"calls-{os.getpid()}").open("a") as stream:
            stream.write("x")
        return original(*arguments)

    embeddings._one = one  # type: ignore[assignment]
    opened(cache, clips(10), workers=1)


def test_two_processes_at_once_embed_each_clip_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sum(len(file.read_text()) for file in tmp_path.glob("calls-*")) == 10
