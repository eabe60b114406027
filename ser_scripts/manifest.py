"""The table that every corpus becomes: one row per clip, with what its reader says and what its audio is.

A clip that cannot be used is never passed over silently: `build_manifest` stops and names it, unless the experiment
lists it under `allow_dropped`. Audio is measured once; what was measured is kept per file under
`<cache>/manifests/`, so that only changed files are read again. Labels and speakers are read afresh every time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
from filelock import FileLock

from ser_eval.run_folder import VOTES_PREFIX, write_json, write_text
from ser_scripts import corpora
from ser_scripts.audio import decode, measure
from ser_scripts.audio.decode import Progress, UnreadableAudio
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora.sources import read_source
from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest
from ser_scripts.specs.corpora import CorpusSpec, NamedCorpus

TEXT_COLUMNS = [
    "corpus", "path", "class_id", "actor", "gender", "group", "sentence", "language", "intensity", "style", "partition",
]  # fmt: skip
RATINGS = list(corpora.RATINGS)
SIGNAL = ["rms_db", "peak", "dc_offset", "clipped_share", "silence_share", "bandwidth_hz"]
"""What the samples tell (`audio/measure.py`); level, peak and offset are of the mono mix, of full scale."""
COLUMNS = [
    *TEXT_COLUMNS, *RATINGS, "duration_seconds", "sample_rate_hz", "num_channels", "sha256", "audio_sha256", *SIGNAL,
]  # fmt: skip
"""Columns of every manifest; corpora with rater votes have `votes_<label>` besides. Text is "" and a rating NaN where
the corpus says nothing."""
HASHED_COLUMNS = ["corpus", "path", "class_id", "actor", "gender", "group", "audio_sha256", "duration_seconds"]
MIN_SECONDS = 0.1
OTHER_LABEL = "its samples ("
"""So begins the reason why a clip is dropped whose samples stand under another label too."""
SILENT_PEAK = 1e-4
"""Peak of the mono mix, of full scale, below which a clip holds no speech (-80 dBFS)."""

FAULTS = ".faults.json"
"""End of the name of a list of faulty clips, beside the measurements in the cache."""

_CACHE_VERSION = f"2, libsndfile {soundfile.__libsndfile_version__}"
_SHOWN = 10


@dataclass(frozen=True)
class Manifest:
    """One corpus, checked."""

    corpus: str
    root: Path
    """Absolute folder that the paths are relative to."""
    clips: pd.DataFrame
    """`COLUMNS`, sorted by path; path is POSIX."""
    dropped: pd.DataFrame
    """Columns path, reason; sorted. A missing clip is named by its stem."""
    speakers_known: bool
    set_aside: pd.DataFrame
    """Columns path, reason; sorted: clips that the corpus gives no label, or that the experiment's `only` leaves out.
    They are not faults, and need no `allow_dropped`."""
    rating_scale: tuple[float, float] | None = None
    """Lowest and highest value that a rating can have; None where the corpus has no ratings."""

    @property
    def votes(self) -> list[str]:
        """The labels that raters voted for, sorted; none where the corpus publishes no votes."""
        return [str(column).removeprefix(VOTES_PREFIX) for column in self.clips if str(column).startswith(VOTES_PREFIX)]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the clips' `HASHED_COLUMNS` as CSV: of labels, speakers and samples, not of the file format."""
        columns = [*HASHED_COLUMNS, *(VOTES_PREFIX + label for label in self.votes)]
        text = self.clips.to_csv(columns=columns, index=False, lineterminator="\n")
        return hashlib.sha256(text.encode()).hexdigest()


def build_manifest(
    corpus_spec: CorpusSpec,
    *,
    data: Path,
    cache: Path,
    base: Path,
    locations: Mapping[str, Path] = MappingProxyType({}),
    allow_dropped: Sequence[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read and check a corpus.

    Args:
        corpus_spec: a corpus of the experiment, of any kind
        data: the folder that holds one folder per named corpus (SER_DATA)
        cache: where measurements are kept
        base: the experiment's folder; relative paths of the spec resolve against it, then the working directory
        locations: folders of named corpora that lie elsewhere (data/locations.json)
        allow_dropped: clips (`<corpus>/<path>`) that may have a fault; a listed clip without one stays. The suffix
            does not count, nor, for a named corpus, whose stems are unique, the folder.
        workers: processes that read audio; one per core when None. The result does not depend on it.
        progress: called with (clips read, clips to read) while audio is read

    Raises:
        BadInput: no such corpus or folder, or clips with a fault that `allow_dropped` does not list
    """
    manifest, expected = _survey(
        corpus_spec, data=data, locations=locations, cache=cache, base=base, workers=workers, progress=progress
    )
    by_stem = named_by_stem(corpus_spec, manifest)
    prefix = f"{corpus_spec.name}/"
    allowed = {clip_name(entry.removeprefix(prefix), by_stem) for entry in allow_dropped if entry.startswith(prefix)}
    blocking = [
        (path, reason)
        for path, reason in manifest.dropped.itertuples(index=False, name=None)
        if clip_name(path, by_stem) not in allowed
    ]
    if blocking:
        raise BadInput(_refusal(manifest, blocking, expected, corpus_spec, cache))
    if manifest.clips.empty:
        raise BadInput(f"{manifest.root}: no clip of {corpus_spec.name} is left, all are dropped")
    return manifest


def survey(
    corpus_spec: CorpusSpec,
    *,
    data: Path,
    cache: Path,
    base: Path,
    locations: Mapping[str, Path] = MappingProxyType({}),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Like `build_manifest`, for looking at a corpus: every clip with a fault is dropped, and stands in `dropped`."""
    return _survey(
        corpus_spec, data=data, locations=locations, cache=cache, base=base, workers=workers, progress=progress
    )[0]


class _Facts(NamedTuple):
    """What decoding one file tells."""

    num_samples: int
    sample_rate_hz: int
    num_channels: int
    sha256: str
    audio_sha256: str
    rms_db: float
    peak: float
    """Of the mono mix; NaN when a sample is not finite."""
    dc_offset: float
    """Mean of the mono mix."""
    clipped_share: float
    silence_share: float
    bandwidth_hz: float


def audio_sha256(samples: decode.Samples) -> str:
    """SHA-256 of samples (channels, samples) as decoded, at their own rate: little-endian float32, interleaved."""
    return hashlib.sha256(samples.T.astype("<f4", order="C").tobytes()).hexdigest()


def _measure(file: str) -> _Facts | str:
    """Facts of a file, or the reason why it has none."""
    try:
        samples, rate_hz = decode.read(Path(file))
        with open(file, "rb") as stream:
            file_sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except UnreadableAudio as error:
        return error.reason
    finite = bool(np.isfinite(samples).all())
    mono = decode.to_mono(samples) if finite else np.full(1, np.nan, np.float32)
    usable = finite and mono.size > 0
    power = float(np.mean(mono.astype(np.float64) ** 2)) if mono.size else 0.0
    return _Facts(
        num_samples=samples.shape[1],
        sample_rate_hz=rate_hz,
        num_channels=samples.shape[0],
        sha256=file_sha256,
        audio_sha256=audio_sha256(samples),
        rms_db=-np.inf if power == 0 else float(10 * np.log10(power)),
        peak=float(np.max(np.abs(mono), initial=0.0)),
        dc_offset=float(mono.mean(dtype=np.float64)) if mono.size else 0.0,
        clipped_share=measure.clipped_share(samples) if usable else 0.0,
        silence_share=measure.silence_share(mono, rate_hz) if usable else 0.0,
        bandwidth_hz=measure.bandwidth_hz(mono, rate_hz) if usable else 0.0,
    )


def _fault(facts: _Facts | str) -> str | None:
    """Why a clip cannot be used, as far as its own file tells."""
    if isinstance(facts, str):
        return facts
    seconds = facts.num_samples / facts.sample_rate_hz
    if facts.num_samples == 0:
        return "it has no samples"
    if np.isnan(facts.peak):
        return "some of its samples are not finite (NaN or infinite)"
    if seconds < MIN_SECONDS:
        return f"it lasts {seconds:.3f} s, less than {MIN_SECONDS} s"
    if facts.peak < SILENT_PEAK:
        return f"it is silent (peak {facts.peak:.1g}, less than {SILENT_PEAK:g})"
    return None


def _survey(
    corpus_spec: CorpusSpec,
    *,
    data: Path,
    locations: Mapping[str, Path],
    cache: Path,
    base: Path,
    workers: int | None,
    progress: Progress | None,
) -> tuple[Manifest, int]:
    """The manifest with every faulty clip dropped, and how many clips the complete corpus has."""
    name = corpus_spec.name
    source = read_source(corpus_spec, data=data, locations=locations, cache=cache, base=base)
    root, language = source.root, source.language
    rows = sorted(source.rows, key=lambda row: row.path)
    _refuse_twins(name, root, rows)
    missing = _missing(rows, source.stems, source.expected)
    rows, aside = _set_aside(rows, corpus_spec, language)

    facts = _measure_all([row.path for row in rows], root, _cache_file(corpus_spec, root, cache), workers, progress)
    faults = {row.path: fault for row in rows if (fault := _fault(facts[row.path])) is not None}
    faults |= _contradictions(rows, {path: fact for path, fact in facts.items() if path not in faults})

    table = [_clip(name, row, language, facts[row.path]) for row in rows if row.path not in faults]
    voted = sorted({label for row in rows for label, _ in row.votes or ()})
    clips = pd.DataFrame(table, columns=[*COLUMNS, *(VOTES_PREFIX + label for label in voted)])
    clips[clips.columns[len(COLUMNS) :]] = clips[clips.columns[len(COLUMNS) :]].fillna(0.0)
    clips[RATINGS] = clips[RATINGS].astype(float)
    dropped = pd.DataFrame(sorted([*faults.items(), *missing.items()]), columns=["path", "reason"], dtype="str")
    set_aside = pd.DataFrame(sorted(aside.items()), columns=["path", "reason"], dtype="str")
    manifest = Manifest(name, root, clips, dropped, source.speakers_known, set_aside, source.rating_scale)
    return manifest, source.expected


def _set_aside(rows: Sequence[ClipRow], spec: CorpusSpec, language: str) -> tuple[list[ClipRow], dict[str, str]]:
    """The rows that take part, and the reason of each that does not.

    Raises:
        BadInput: a value of `only` that no clip has
    """
    aside = {row.path: row.set_aside for row in rows if row.set_aside is not None}
    for column, wanted in spec.only.items():
        values = {row.path: (getattr(row, column) or (language if column == "language" else "")) for row in rows}
        if column == "group":
            values = {row.path: row.group if row.group is not None else row.actor for row in rows}
        for value in wanted:
            if value not in values.values():
                told = set(values.values()) - {""}
                hint = nearest(value, told) if told else f"; the corpus tells no {column} of its clips"
                raise BadInput(f"corpus '{spec.name}': only.{column}: no clip has {value!r}{hint}")
        for path, value in values.items():
            if value not in wanted:
                aside.setdefault(path, f"{column} is {value or 'not known'}")
    return [row for row in rows if row.path not in aside], aside


def _clip(corpus: str, row: ClipRow, language: str, facts: _Facts | str) -> dict[str, Any]:
    assert isinstance(facts, _Facts)
    return {
        "corpus": corpus,
        "path": row.path,
        "class_id": row.class_id,
        "actor": row.actor,
        "gender": row.gender,
        "group": row.group if row.group is not None else row.actor,
        "sentence": row.sentence or "",
        "language": row.language or language,
        "intensity": row.intensity or "",
        "style": row.style or "",
        "partition": row.partition or "",
        "valence": row.valence,
        "arousal": row.arousal,
        "dominance": row.dominance,
        "duration_seconds": facts.num_samples / facts.sample_rate_hz,
        "sample_rate_hz": facts.sample_rate_hz,
        "num_channels": facts.num_channels,
        "sha256": facts.sha256,
        "audio_sha256": facts.audio_sha256,
        **{name: getattr(facts, name) for name in SIGNAL},
        **{VOTES_PREFIX + label: votes for label, votes in row.votes or ()},
    }


def _refuse_twins(corpus: str, root: Path, rows: Sequence[ClipRow]) -> None:
    """Two files that differ in their suffix only are two copies of a clip, and nobody can tell which one is meant."""
    seen: dict[str, str] = {}
    for row in rows:
        stem = str(PurePosixPath(row.path).with_suffix(""))
        if stem in seen:
            raise BadInput(f"corpus '{corpus}': {root} holds both {seen[stem]} and {row.path}; keep one of them")
        seen[stem] = row.path


def _contradictions(rows: Sequence[ClipRow], facts: dict[str, _Facts | str]) -> dict[str, str]:
    """Clips whose samples are those of a clip with another label: nobody can tell which label is right."""
    groups: dict[str, list[ClipRow]] = {}
    for row in rows:
        if isinstance(fact := facts.get(row.path), _Facts):
            groups.setdefault(fact.audio_sha256, []).append(row)
    faults = {}
    for group in groups.values():
        for row in group:
            others = [f"{other.path} ({other.class_id})" for other in group if other.class_id != row.class_id]
            if others:
                faults[row.path] = f"{OTHER_LABEL}{row.class_id}) are also those of {_some(others)}"
    return faults


def _missing(rows: Sequence[ClipRow], stems: Collection[str] | None, expected: int) -> dict[str, str]:
    if stems is not None:
        bare = [PurePosixPath(row.path).with_suffix("") for row in rows]
        # a corpus that uses one name in several folders states its clips as <folder>/<stem>, or by the whole path
        found = {name for path in bare for name in (path.name, f"{path.parent.name}/{path.name}", str(path))}
        return {stem: "missing" for stem in stems if stem not in found}
    lacking = expected - len(rows)
    return {f"missing-{lacking}": f"{lacking} clips are missing; their names are not known"} if lacking > 0 else {}


def _measure_all(
    paths: Sequence[str], root: Path, cache_file: Path, workers: int | None, progress: Progress | None
) -> dict[str, _Facts | str]:
    """Facts of every file; only those that are new or changed since the cache was written are opened."""
    known = _load_cache(cache_file)
    stamps: dict[str, list[int]] = {}
    facts: dict[str, _Facts | str] = {}
    for path in paths:
        stamps[path] = _stamp(root / path)
        if path in known and known[path][:2] == stamps[path]:
            facts[path] = _Facts(*known[path][2:])
    to_read = [path for path in paths if path not in facts]
    files = [str(root / path) for path in to_read]
    measured = decode.in_order(_measure, files, workers=workers, progress=progress)
    facts |= dict(zip(to_read, measured, strict=True))
    # Clips that another label set reads stay; failures are not kept: they may be mended outside the file, e.g. by
    # installing ffmpeg.
    rows = {path: row for path, row in known.items() if path not in facts and row[:2] == _stamp(root / path)}
    rows |= {path: [*stamps[path], *fact] for path in paths if isinstance(fact := facts[path], _Facts)}
    if rows != known:
        _save_cache(cache_file, rows)
    return facts


def _stamp(file: Path) -> list[int]:
    """Size and time of change, by which a changed file is known."""
    try:
        status = file.stat()
    except OSError:  # a dangling link, say: decoding tells
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _cache_file(spec: CorpusSpec, root: Path, cache: Path) -> Path:
    place = [spec.kind, str(root), "" if isinstance(spec, NamedCorpus) else spec.path, *filter(None, [spec.twin])]
    return cache / "manifests" / f"{spec.name}-{hashlib.sha256(json.dumps(place).encode()).hexdigest()[:16]}.json"


def _load_cache(file: Path) -> dict[str, list[Any]]:
    """Rows of path -> size, mtime_ns, facts; none when the file is absent, damaged or of another version."""
    try:
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    if hashlib.sha256(text.encode()).hexdigest() != checksum:
        return {}
    content = json.loads(text)
    rows: dict[str, list[Any]] = content["files"] if content["version"] == _CACHE_VERSION else {}
    return rows


def _save_cache(file: Path, rows: dict[str, list[Any]]) -> None:
    text = json.dumps({"version": _CACHE_VERSION, "files": rows}, ensure_ascii=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            write_text(file, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    except OSError as error:
        raise BadInput(f"cannot write to the cache folder {file.parent}: {error.strerror or error}") from None


def _refusal(
    manifest: Manifest, blocking: Sequence[tuple[str, str]], expected: int, spec: CorpusSpec, cache: Path
) -> str:
    """The text of the error that names every clip in the way."""
    title = corpora.get(spec.reader).TITLE if isinstance(spec, NamedCorpus) else spec.name
    missing = [path for path, reason in blocking if reason == "missing"]
    faulty = [(path, reason) for path, reason in blocking if reason != "missing"]
    lines = []
    if missing:
        found = expected - sum(manifest.dropped["reason"] == "missing")
        lines.append(f"{manifest.root} holds {found} of the {expected} clips of {title}; missing: {_some(missing)}.")
        if isinstance(spec, NamedCorpus) and (hint := corpora.resemblance(manifest.root, spec.reader)):
            lines.append(hint)
    if faulty:
        lines.append(f"{manifest.root} holds {len(faulty)} clips of {title} that cannot be used:")
        lines += [f"  {spec.name}/{path}: {reason}" for path, reason in faulty[:_SHOWN]]
        if len(faulty) > _SHOWN:
            lines.append(f"  ... and {len(faulty) - _SHOWN} more")
    if max(len(missing), len(faulty)) > _SHOWN:
        full = _cache_file(spec, manifest.root, cache).with_suffix(FAULTS)
        reasons = {f"{spec.name}/{path}": reason for path, reason in blocking}
        full.parent.mkdir(parents=True, exist_ok=True)
        write_json(full, {"allow_dropped": sorted(reasons), "reasons": reasons})
        lines.append(f"All of them stand in {full}.")
    lines.append(
        f'{"Restore" if missing else "Mend"} them, or list them under "allow_dropped" in the experiment '
        f'(as "{spec.name}/{blocking[0][0]}") to go on without them.'
    )
    return "\n".join(lines)


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f", ... ({len(items)})" if len(items) > _SHOWN else "")


def named_by_stem(spec: CorpusSpec, manifest: Manifest) -> bool:
    """Whether the file name alone tells every clip of a known corpus from the others; in some, folders repeat names."""
    stems = [clip_name(path, by_stem=True) for path in (*manifest.clips["path"], *manifest.dropped["path"])]
    return isinstance(spec, NamedCorpus) and len(set(stems)) == len(stems)


def clip_name(path: str, by_stem: bool) -> str:
    """What an entry of `allow_dropped` and a clip are compared by."""
    pure = PurePosixPath(path)
    bare = pure.with_suffix("") if pure.suffix.lower() in decode.SUFFIXES else pure
    return bare.name if by_stem else str(bare)
