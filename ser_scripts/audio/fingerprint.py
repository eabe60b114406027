"""Acoustic fingerprints: find the same recording after it was re-encoded, resampled, turned up or down, or trimmed.

After Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002: windows of 0.37 s, 33 bands from
300 to 2000 Hz on a logarithmic scale, and per window 32 bits: the signs of the differences of neighbouring bands'
powers, differenced again in time. Two recordings are compared by their bit error rate (BER) at the best of all offsets:
strangers lie around 0.44, copies below 0.2. Two things differ from their system: windows far below the loudest one do
not count, because a codec replaces near-silence by noise of its own; and candidates are clips that share 24 bits of a
word, which clips are few enough to be sorted for.

`MAX_BER` was chosen on every pair of EmoDB and of CREMA-D, at every offset (27.8 million pairs, among them all takes of
a sentence by a speaker): at least 0.24 for different recordings, one pair below 0.26 and twice as many per further
0.01; so that about one in a billion pairs of strangers would lie below 0.2. The pairs of CREMA-D that do lie there
(0.06 to 0.17) are one recording under two names each: their samples correlate with 0.94 or more.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.fft
from filelock import FileLock

from ser_scripts.audio import decode
from ser_scripts.audio.decode import Progress, Samples
from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest, audio_sha256

RATE_HZ = 5500
WINDOW = 2048
HOP = 96
NUM_BANDS = 33
LOWEST_HZ, HIGHEST_HZ = 300.0, 2000.0
COUNTED_WITHIN_DB = 25.0
"""Windows further below the loudest one of the clip do not count."""
MAX_BER = 0.2
MIN_WORDS = 32
"""Words that must overlap and count: 0.56 s, that is 0.93 s of sound."""
MANY_WORDS = 64
MAX_BER_OF_FEW_WORDS = 0.15
"""Holds below `MANY_WORDS`: chance, and a steady vowel, reach lower rates over fewer words."""

_VERSION = 1
_KEYS = tuple(0xFFFFFFFF ^ (0xFF << shift) for shift in (0, 8, 16, 24))
"""Two words meet when they agree outside one byte."""
_MAX_MEETING = 100
"""Words that more windows than these have say nothing: a constant tone, say."""
_NEAR_WINDOWS = 2
_REFINED_BELOW = 0.4
_BATCH = 20_000

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Fingerprint:
    """One word of 32 bits every 17.5 ms, and whether it counts."""

    words: Words
    """(windows - 1,)"""
    counts: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NearDuplicate:
    """Two clips that sound like one recording."""

    one: int
    """Index of a clip, below `other`."""
    other: int
    ber: float
    """Share of differing bits, 0 to `MAX_BER`."""
    offset_seconds: float
    """How much earlier the recording begins in `one`: positive where `other` lacks the beginning."""


def fingerprint(mono: Samples, rate_hz: int) -> Fingerprint:
    """The words of a clip of shape (samples,); none for a clip shorter than two windows (0.38 s)."""
    signal = decode.resample(np.ascontiguousarray(mono, dtype=np.float32), rate_hz, RATE_HZ)
    if len(signal) < WINDOW + HOP:
        return Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.bool_))
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    power = np.concatenate([_band_power(frames[start : start + 512]) for start in range(0, len(frames), 512)])
    slope = power[:, :-1] - power[:, 1:]  # (windows, 32)
    bits = slope[1:] > slope[:-1]
    words = np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.uint32)
    level = power.sum(axis=1)
    loud = level > level.max() * 10 ** (-COUNTED_WITHIN_DB / 10)
    return Fingerprint(words, loud[1:] & loud[:-1])


_HANN = np.hanning(WINDOW).astype(np.float32)
_EDGES = np.searchsorted(
    np.arange(WINDOW // 2 + 1) * RATE_HZ / WINDOW, np.geomspace(LOWEST_HZ, HIGHEST_HZ, NUM_BANDS + 1)
)


def _band_power(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(windows, WINDOW) -> (windows, NUM_BANDS)."""
    spectra = scipy.fft.rfft(frames * _HANN, axis=1)[:, _EDGES[0] : _EDGES[-1]]
    power: npt.NDArray[np.float32] = np.add.reduceat(spectra.real**2 + spectra.imag**2, _EDGES[:-1] - _EDGES[0], axis=1)
    return power


def near_duplicates(prints: Sequence[Fingerprint]) -> list[NearDuplicate]:
    """Every pair of clips whose BER is low enough over at least `MIN_WORDS` words, sorted.

    The result depends on the clips alone; a pair is compared when two of its words agree outside one byte.
    """
    if not prints:
        return []
    lengths = np.array([len(one.words) for one in prints], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    words = np.concatenate([one.words for one in prints])
    counts = np.concatenate([one.counts for one in prints])
    if not counts.any():
        return []
    found = _Search(words, counts, starts, lengths)
    ones, others, offsets = found.candidates()
    errors, _ = found.compare(ones, others, offsets)
    promising = errors <= _REFINED_BELOW
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for shift in (-2, -1, 0, 1, 2):  # a word may agree one window beside the best offset
        a, b, at = ones[promising], others[promising], offsets[promising] + shift
        errors, overlaps = found.compare(a, b, at)
        allowed = np.where(overlaps >= MANY_WORDS, MAX_BER, MAX_BER_OF_FEW_WORDS)
        near = (errors <= allowed) & (overlaps >= MIN_WORDS)
        for one, other, error, offset in zip(
            a[near].tolist(), b[near].tolist(), errors[near].tolist(), at[near].tolist(), strict=True
        ):
            best[one, other] = min(best.get((one, other), (1.0, 0)), (error, offset))
    return [
        NearDuplicate(one, other, error, offset * HOP / RATE_HZ)
        for (one, other), (error, offset) in sorted(best.items())
    ]


@dataclass(frozen=True)
class _Search:
    """The words of all clips, one after the other."""

    words: Words
    counts: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def candidates(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(one, other, offset) of clips that share a key, each once, sorted; one < other."""
        clip = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)[self.counts]
        place = np.concatenate([np.arange(length, dtype=np.int32) for length in self.lengths])[self.counts]
        words = self.words[self.counts]
        longest = int(self.lengths.max())
        found = []
        for mask in _KEYS:
            keys = words & np.uint32(mask)
            order = np.argsort(keys, kind="stable")  # stable: by clip, then place, among equal keys
            keys = keys[order]
            sizes = np.diff(np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]])))
            meeting = np.repeat((sizes > 1) & (sizes <= _MAX_MEETING), sizes)
            keys, order = keys[meeting], order[meeting]
            for lag in range(1, _MAX_MEETING):
                same = np.flatnonzero(keys[lag:] == keys[:-lag])
                if not len(same):
                    break
                first, second = order[same], order[same + lag]
                apart = clip[first] != clip[second]
                first, second = first[apart], second[apart]
                pair = clip[first].astype(np.int64) * len(self.lengths) + clip[second]
                found.append(pair * (2 * longest + 1) + place[first] - place[second] + longest)
        codes = np.concatenate([np.zeros(0, np.int64), *found])
        codes.sort()
        near = np.diff(codes) <= _NEAR_WINDOWS  # a copy meets more than once about its offset, strangers seldom
        codes = np.unique(codes[np.append(near, False) | np.append(False, near)]) if len(near) else codes[:0]
        pair, offset = np.divmod(codes, 2 * longest + 1)
        return (*np.divmod(pair, len(self.lengths)), offset - longest)

    def compare(
        self, ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """BER (1 without overlap) and number of words that count, of pairs of clips at an offset."""
        errors = np.ones(len(ones))
        overlaps = np.zeros(len(ones), np.int64)
        for low in range(0, len(ones), _BATCH):
            here = slice(low, low + _BATCH)
            one, other, offset = ones[here], others[here], offsets[here]
            begin = np.maximum(0, offset)
            end = np.minimum(self.lengths[one], offset + self.lengths[other])
            size = np.maximum(0, end - begin)
            which = np.repeat(np.arange(len(one)), size)
            step = np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size)
            left = (self.starts[one] + begin)[which] + step
            right = (self.starts[other] + begin - offset)[which] + step
            counted = self.counts[left] & self.counts[right]
            wrong = np.bitwise_count(self.words[left] ^ self.words[right]) * counted
            overlaps[here] = np.bincount(which, counted, len(one)).astype(np.int64)
            bits = np.bincount(which, wrong, len(one))
            errors[here] = np.where(overlaps[here] > 0, bits / np.maximum(1, 32 * overlaps[here]), 1.0)
        return errors, overlaps


def fingerprints(
    manifest: Manifest, cache: Path, progress: Progress | None = None, *, workers: int | None = None
) -> list[Fingerprint]:
    """Fingerprints of a manifest's clips, in their order; kept by content in `<cache>/fingerprints/<corpus>.npz`.

    Args:
        manifest: which clips
        cache: folder of all caches
        progress: called with (clips done, clips to do) while audio is read
        workers: processes that decode; one per core when None. The result does not depend on it.

    Raises:
        BadInput: a file has changed since the manifest was built, or the cache cannot be written
    """
    known = known_fingerprints(manifest.corpus, cache)
    shas = manifest.clips["audio_sha256"].tolist()
    wanted = {sha: path for sha, path in zip(shas, manifest.clips["path"], strict=True) if sha not in known}
    if wanted:
        items = [(path, sha) for sha, path in wanted.items()]
        made = decode.in_order(partial(_fingerprint_of, manifest.root), items, workers=workers, progress=progress)
        known |= dict(zip(wanted, made, strict=True))
        keep_fingerprints(manifest.corpus, cache, known)
    return [known[sha] for sha in shas]


def known_fingerprints(corpus: str, cache: Path) -> dict[str, Fingerprint]:
    """The fingerprints that the cache holds of a corpus, by audio_sha256."""
    return _load(cache.absolute() / "fingerprints" / f"{corpus}.npz")


def keep_fingerprints(corpus: str, cache: Path, prints: dict[str, Fingerprint]) -> None:
    """Add fingerprints to the cache, beside those that it has.

    Raises:
        BadInput: the cache cannot be written
    """
    file = cache.absolute() / "fingerprints" / f"{corpus}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            _save(file, _load(file) | prints)
    except OSError as error:
        raise BadInput(f"cannot write to the cache folder {file.parent}: {error.strerror or error}") from None


def near_duplicates_across(
    clips: pd.DataFrame,
    manifests: Mapping[str, Manifest],
    cache: Path,
    progress: Callable[[str], Progress] | None = None,
) -> list[tuple[str, str, float]]:
    """Near duplicates among clips of different speakers: one recording that stands under two names.

    Copies within a speaker are left out, since speakers do not cross sides; two clips of unknown speakers are not. So
    are identical samples, which the leak check finds by their checksum.

    Args:
        clips: columns corpus, path, actor, audio_sha256
        manifests: by corpus; where the clips lie
        cache: folder of all caches
        progress: gives the callback for reading a corpus, by its name

    Returns:
        (`<corpus>/<path>`, `<corpus>/<path>`, BER) of each pair, sorted
    """
    by_sha: dict[str, Fingerprint] = {}
    for name in sorted(set(clips["corpus"])):
        prints = fingerprints(manifests[name], cache, progress(name) if progress else None)
        by_sha |= dict(zip(manifests[name].clips["audio_sha256"], prints, strict=True))
    names, actors = (clips["corpus"] + "/" + clips["path"]).tolist(), clips["actor"].tolist()
    speakers = (clips["corpus"] + "/" + clips["actor"]).tolist()
    shas = clips["audio_sha256"].tolist()
    pairs = []
    for pair in near_duplicates([by_sha[sha] for sha in shas]):
        one, other = pair.one, pair.other
        if shas[one] != shas[other] and (speakers[one] != speakers[other] or not actors[one]):
            first, second = sorted((names[one], names[other]))
            pairs.append((first, second, pair.ber))
    return sorted(pairs)


def _fingerprint_of(root: Path, clip: tuple[str, str]) -> Fingerprint:
    path, expected_sha256 = clip
    samples, rate_hz = decode.read(root / path)
    if audio_sha256(samples) != expected_sha256:
        raise BadInput(f"{root / path} has changed since the corpus was read; start again")
    return fingerprint(decode.to_mono(samples), rate_hz)


def _load(file: Path) -> dict[str, Fingerprint]:
    """Fingerprints by audio_sha256; none when the file is absent, damaged or of another version."""
    try:
        checksum, _, content = file.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        return {}
    with np.load(io.BytesIO(content)) as arrays:
        if int(arrays["version"]) != _VERSION:
            return {}
        ends = np.cumsum(arrays["lengths"])[:-1]
        words, counts = np.split(arrays["words"], ends), np.split(arrays["counts"], ends)
        shas = arrays["shas"].astype(str).tolist()
    return {sha: Fingerprint(*parts) for sha, *parts in zip(shas, words, counts, strict=True)}


def _save(file: Path, prints: dict[str, Fingerprint]) -> None:
    content = io.BytesIO()
    ordered = [prints[sha] for sha in sorted(prints)]
    np.savez(
        content,
        version=np.int64(_VERSION),
        shas=np.array(sorted(prints), dtype="S64"),
        lengths=np.array([len(one.words) for one in ordered], dtype=np.int64),
        words=np.concatenate([one.words for one in ordered]),
        counts=np.concatenate([one.counts for one in ordered]),
    )
    data = content.getvalue()
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
