"""What is in a corpus, a CSV, a folder or all corpora of an experiment, as tables that change and suggest nothing.

Every table has a row or a column per corpus, and one for all of them pooled where there are several. The same tables
are printed, written as JSON, and written as CSV files with a page of pictures per corpus.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock

from ser_eval.band import bandwidth_words, is_band_limited
from ser_eval.run_folder import VOTES_PREFIX, write_json, write_table, write_text
from ser_scripts import corpora
from ser_scripts.audio import decode
from ser_scripts.audio.decode import Progress
from ser_scripts.audio.fingerprint import (
    KEEP_EVERY,
    MIN_WORDS,
    Fingerprint,
    fingerprint,
    keep_fingerprints,
    known_fingerprints,
    near_duplicates,
)
from ser_scripts.audio.steps.level import loudness_lufs
from ser_scripts.errors import BadInput, about
from ser_scripts.files import writable_folder
from ser_scripts.manifest import OTHER_LABEL, RATINGS, Manifest, audio_sha256, survey
from ser_scripts.runs.check import corpus_spec
from ser_scripts.runs.plan import Experiment, load_experiment
from ser_scripts.runs.progress import counter
from ser_scripts.settings import Folders, folders
from ser_scripts.specs.corpora import CorpusSpec, CsvCorpus, NamedCorpus
from ser_scripts.tasks import make_task

POOLED = "(pooled)"
"""No corpus can have this name."""
WIDTH = 120
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MEASURES = {
    "lufs": "loudness in LUFS",
    "rms_db": "RMS in dBFS",
    "peak": "peak, of full scale",
    "silence_share": "share of silence",
    "clipped_share": "share of clipped samples",
    "dc_offset": "DC offset, of full scale",
    "bandwidth_hz": "bandwidth in Hz",
}
"""Column of a clip -> name in the table of measures."""
_HISTOGRAM_BARS = 20
_NICE = (1.0, 2.0, 2.5, 5.0)
_TEXT_ROWS = 24
_CELL = 46
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Table:
    """One table of a description."""

    name: str
    title: str
    frame: pd.DataFrame
    summary: pd.DataFrame | None = None
    """Shown in the text instead, where the frame has a row per clip."""


@dataclass(frozen=True)
class Part:
    """The clips of one corpus, or of all pooled."""

    name: str
    clips: pd.DataFrame
    """Manifest columns, `lufs`, and `speaker` (`<corpus>/<actor>` when pooled, "" where unknown)."""


@dataclass(frozen=True)
class Description:
    """What was found."""

    what: str
    sources: dict[str, dict[str, Any]]
    """Per corpus: folder, checksum of the manifest, and what its module says of it."""
    notes: list[str]
    """Facts that a reader should not miss, in sentences."""
    tables: list[Table]
    parts: list[Part] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """The description as JSON data; a missing number is null."""
        return {
            "what": self.what,
            "sources": self.sources,
            "notes": self.notes,
            "tables": {table.name: _records(table.frame) for table in self.tables},
        }

    def text(self) -> str:
        """The description for a terminal of 120 columns; long tables are cut, and say so."""
        lines = [f"{name}: {source['root']}" for name, source in self.sources.items()]
        for note in self.notes:
            lines += textwrap.wrap(f"! {note}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for table in self.tables:
            shown = table.frame if table.summary is None else table.summary
            if len(table.frame):
                lines += ["", table.title, *_aligned(shown.head(_TEXT_ROWS))]
                if len(shown) > _TEXT_ROWS:
                    lines.append(f"... and {len(shown) - _TEXT_ROWS} rows more (--out FOLDER or --json has all)")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The description as Markdown, with every row of every table that is not a row per clip."""
        lines = [f"# {self.what}", ""]
        lines += [
            f"- `{name}`: {source['root']}, SHA-256 of the manifest `{source['manifest_sha256'][:16]}`"
            for name, source in self.sources.items()
        ]
        lines += ["", *(f"- {note}" for note in self.notes), ""]
        for part in self.parts:
            lines += [f"![{part.name}]({page_name(part)})", ""]
        for table in self.tables:
            shown = table.frame if table.summary is None else table.summary
            if shown.empty:
                continue
            cells = [[_cell(value).replace("|", "\\|") for value in row] for row in _rows(shown)]
            header = [str(column) for column in shown.columns]
            lines += [f"## {table.title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
            lines += ["| " + " | ".join(row) + " |" for row in cells]
            lines.append("")
        return "\n".join(lines)


def page_name(part: Part) -> str:
    """File name of the page of pictures of a part."""
    return "pooled.png" if part.name == POOLED else f"page-{part.name}.png"


def describe(what: str, *, say: Callable[[str], None]) -> Description:
    """Describe what lies on this machine; clips with a fault are dropped and named, and nothing stops at them.

    Args:
        what: a corpus, a CSV of clips, a folder with one folder per class, or an experiment JSON
        say: told what goes on

    Raises:
        BadInput: no such corpus, folder or file, or one that cannot be read
    """
    where = folders()
    experiment = load_experiment(Path(what)) if what.endswith(".json") else None
    if experiment is None:
        specs = [corpus_spec(what)]
    else:
        trained = [one for group in experiment.spec.train for one in group]
        specs = list({one.name: one for one in [*trained, *experiment.spec.test]}.values())
    base = experiment.base if experiment else Path()
    manifests = {}
    for one in specs:
        key = "" if experiment is None else f"{experiment.file}: {'train' if one in trained else 'test'}"
        with about(key) if key else contextlib.nullcontext():
            manifests[one.name] = survey(
                one,
                data=where.data,
                locations=where.locations,
                cache=where.cache,
                base=base,
                progress=counter(say, f"reading {one.name}"),
            )
    if empty := [name for name, manifest in manifests.items() if manifest.clips.empty]:
        reasons = manifests[empty[0]].dropped["reason"].value_counts()
        raise BadInput(
            f"{manifests[empty[0]].root}: no clip of {empty[0]} can be used; the first reason: {reasons.index[0]}"
        )
    return describe_manifests(what, specs, manifests, where, experiment=experiment, say=say)


def describe_manifests(
    what: str,
    specs: Sequence[CorpusSpec],
    manifests: Mapping[str, Manifest],
    where: Folders,
    *,
    experiment: Experiment | None,
    say: Callable[[str], None],
) -> Description:
    """Describe corpora that have been read; `specs` and `manifests` are of the same corpora."""
    prints: list[Fingerprint] = []
    tables = []
    for name, manifest in manifests.items():
        lufs, printed = listen(manifest, where.cache, counter(say, f"listening to {name}"))
        prints += printed
        speaker = (name + "/" + manifest.clips["actor"]).where(manifest.clips["actor"] != "", "")
        tables.append(manifest.clips.assign(lufs=lufs, speaker=speaker))
    clips = pd.concat(tables, ignore_index=True)
    parts = [
        Part(name, clips[clips["corpus"] == name].assign(speaker=lambda rows: rows["actor"])) for name in manifests
    ]
    if len(parts) > 1:
        parts.append(Part(POOLED, clips))
    exact, near = exact_duplicates(clips, manifests), near_duplicate_pairs(clips, prints)
    found = [
        overview(parts, manifests, exact, near),
        sample_rates(parts),
        channels(parts),
        durations(parts),
        histogram(parts),
        classes(parts),
        speakers(parts),
        missing_cells(parts),
        measures(parts),
        exact,
        near,
        sentences(parts),
        sentence_dependence(parts),
        values(parts),
        votes(parts),
        ratings(parts, specs),
        *([task_table(experiment, manifests)] if experiment else []),
        _left("dropped", "Dropped clips, by reason", {name: one.dropped for name, one in manifests.items()}),
        _left("set_aside", "Clips set aside, by reason", {name: one.set_aside for name, one in manifests.items()}),
    ]
    sources = {spec.name: _source(spec, manifests[spec.name]) for spec in specs}
    return Description(what, sources, _notes(parts, manifests, prints, exact, near), found, parts)


def write_description(description: Description, out: Path) -> list[Path]:
    """Write description.json, describe.md, a CSV per table and a page of pictures per part; returns the files."""
    from ser_scripts.describe_page import write_page

    writable_folder(out, remedy="set --out")
    files = [out / "description.json", out / "describe.md"]
    write_json(files[0], description.content())
    write_text(files[1], description.markdown())
    for table in description.tables:
        files.append(out / f"{table.name}.csv")
        write_table(files[-1], table.frame)
    for part in description.parts:
        files.append(out / page_name(part))
        write_page(files[-1], part)
    return files


def listen(
    manifest: Manifest, cache: Path, progress: Progress | None = None, *, workers: int | None = None
) -> tuple[list[float], list[Fingerprint]]:
    """Loudness in LUFS and fingerprint of a manifest's clips, in their order; a clip is decoded once for both.

    Both are kept by content: `<cache>/loudness/<corpus>.json`, `<cache>/fingerprints/<corpus>.npz`.

    Raises:
        BadInput: a file has changed since the manifest was built, or the cache cannot be written
    """
    file = cache.absolute() / "loudness" / f"{manifest.corpus}.json"
    lufs, prints = _load_loudness(file), known_fingerprints(manifest.corpus, cache)
    shas = manifest.clips["audio_sha256"].tolist()
    items = {
        sha: (path, sha, sha not in lufs, sha not in prints)
        for sha, path in zip(shas, manifest.clips["path"], strict=True)
        if sha not in lufs or sha not in prints
    }
    if items:
        heard = decode.in_order(
            partial(_listen_to, manifest.root), list(items.values()), workers=workers, progress=progress
        )
        for done, (sha, (level, one)) in enumerate(zip(items, heard, strict=True), start=1):
            lufs |= {} if level is None else {sha: level}
            prints |= {} if one is None else {sha: one}
            if done % KEEP_EVERY == 0 or done == len(items):  # a stop loses little
                keep_fingerprints(manifest.corpus, cache, prints)
                _keep_loudness(file, lufs)
    return [lufs[sha] for sha in shas], [prints[sha] for sha in shas]


def _keep_loudness(file: Path, lufs: dict[str, float]) -> None:
    """Add loudnesses to the cache, beside those that it has."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            kept = _load_loudness(file) | lufs
            text = json.dumps({"version": _loudness_version(), "lufs": dict(sorted(kept.items()))})
            write_text(file, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    except OSError as error:
        raise BadInput(f"cannot write to the cache folder {file.parent}: {error.strerror or error}") from None


def _listen_to(root: Path, clip: tuple[str, str, bool, bool]) -> tuple[float | None, Fingerprint | None]:
    path, expected_sha256, level_wanted, print_wanted = clip
    samples, rate_hz = decode.read(root / path)
    if audio_sha256(samples) != expected_sha256:
        raise BadInput(f"{root / path} has changed since the corpus was read; start again")
    mono = decode.to_mono(samples)
    return (
        loudness_lufs(mono, rate_hz) if level_wanted else None,
        fingerprint(mono, rate_hz) if print_wanted else None,
    )


def _loudness_version() -> str:
    return f"{_CACHE_VERSION}, pyloudnorm {version('pyloudnorm')}"


def _load_loudness(file: Path) -> dict[str, float]:
    """LUFS by audio_sha256; none when the file is absent, damaged or of another version."""
    try:
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    if hashlib.sha256(text.encode()).hexdigest() != checksum:
        return {}
    content = json.loads(text)
    lufs: dict[str, float] = content["lufs"] if content["version"] == _loudness_version() else {}
    return lufs


def overview(parts: Sequence[Part], manifests: Mapping[str, Manifest], exact: Table, near: Table) -> Table:
    """One row per part: how much there is of everything."""
    rows = []
    for part in parts:
        clips = part.clips
        mine = list(manifests) if part.name == POOLED else [part.name]
        people = clips[clips["speaker"] != ""].drop_duplicates("speaker")
        row: dict[str, Any] = {"corpus": part.name, "clips": len(clips), "speakers": len(people)}
        if not (clips["speaker"] != "").all():
            row["speakers"] = None
        row |= {gender: int((people["gender"] == gender).sum()) for gender in ("female", "male")}
        row |= {
            "classes": clips["class_id"].nunique(),
            "sentences": _number_of(clips["corpus"] + "/" + clips["sentence"], clips["sentence"] != ""),
            "languages": _number_of(clips["language"], clips["language"] != ""),
            "hours": float(clips["duration_seconds"].sum()) / 3600,
            "mean_seconds": float(clips["duration_seconds"].mean()),
            "dropped": sum(len(manifests[name].dropped) for name in mine),
            "set_aside": sum(len(manifests[name].set_aside) for name in mine),
            "copies": _concerns(exact.frame, mine),
            "near_copies": _concerns(near.frame, mine),
        }
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame["speakers"] = frame["speakers"].astype("Int64")
    return Table("overview", "Overview", frame)


def sample_rates(parts: Sequence[Part]) -> Table:
    """Rate -> clips, one column per part."""
    return Table("sample_rates", "Clips by sample rate", _counted_by(parts, "sample_rate_hz"))


def channels(parts: Sequence[Part]) -> Table:
    """Number of channels -> clips, one column per part."""
    return Table("channels", "Clips by number of channels", _counted_by(parts, "num_channels"))


def durations(parts: Sequence[Part]) -> Table:
    """Quantiles of the duration in seconds, one row per part."""
    rows = []
    for part in parts:
        seconds = part.clips["duration_seconds"]
        row = {"corpus": part.name, "hours": seconds.sum() / 3600, "mean": seconds.mean(), "sd": seconds.std(ddof=1)}
        row |= {"min": seconds.min()} | {f"{q:.0%}": seconds.quantile(q) for q in QUANTILES} | {"max": seconds.max()}
        rows.append(row)
    return Table("durations", "Duration in seconds: mean, SD and quantiles", pd.DataFrame(rows))


def histogram(parts: Sequence[Part]) -> Table:
    """Clips per stretch of duration, one column per part; the last stretch is open."""
    everything = pd.concat([part.clips["duration_seconds"] for part in parts])
    width = nice_width(float(everything.quantile(0.995)))
    last = max(1, int(np.ceil(round(float(everything.quantile(0.995)) / width, 9))))
    edges = [*(round(n * width, 6) for n in range(last + 1)), np.inf]
    frame = pd.DataFrame({"from_seconds": edges[:-1], "to_seconds": edges[1:]})
    for part in parts:
        frame[part.name] = np.histogram(part.clips["duration_seconds"], bins=edges)[0]
    used = frame[[part.name for part in parts]].sum(axis=1) > 0
    frame = frame[used.cummax() & used[::-1].cummax()[::-1]].reset_index(drop=True)
    return Table("duration_histogram", "Clips by duration", frame)


def nice_width(span: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that cuts a span into 20 stretches or fewer."""
    power = 10.0 ** np.floor(np.log10(max(span, 1e-3) / _HISTOGRAM_BARS))
    return float(
        next(width for width in (*(power * nice for nice in _NICE), 10 * power) if width * _HISTOGRAM_BARS >= span)
    )


def classes(parts: Sequence[Part]) -> Table:
    """Clips per class and gender, and what the clips of a class have in common besides emotion."""
    rows = []
    for part in parts:
        genders = [gender for gender in ("female", "male", "other", "unknown") if _has(parts, "gender", gender)]
        for label, clips in part.clips.groupby("class_id", sort=True):
            row = {"corpus": part.name, "class": label, "clips": len(clips), "share": len(clips) / len(part.clips)}
            row |= {gender: int((clips["gender"] == gender).sum()) for gender in genders}
            row |= {"speakers": clips.loc[clips["speaker"] != "", "speaker"].nunique()}
            row |= {"mean_seconds": clips["duration_seconds"].mean(), "mean_lufs": clips["lufs"].mean()}
            row |= {
                "mean_silence_share": clips["silence_share"].mean(),
                "median_bandwidth_hz": clips["bandwidth_hz"].median(),
            }
            rows.append(row)
    return Table("classes", "Classes", pd.DataFrame(rows))


def speakers(parts: Sequence[Part]) -> Table:
    """Clips per speaker and class, one row per speaker; without rows where speakers are unknown."""
    rows = []
    for part in _own(parts):
        labels = sorted(set(part.clips["class_id"]))
        for actor, clips in part.clips[part.clips["actor"] != ""].groupby("actor", sort=True):
            counts = clips["class_id"].value_counts()
            row = {"corpus": part.name, "actor": actor, "gender": "/".join(sorted(set(clips["gender"])))}
            row |= {
                "clips": len(clips),
                "mean_lufs": clips["lufs"].mean(),
                "mean_silence": clips["silence_share"].mean(),
            }
            rows.append(row | {label: int(counts.get(label, 0)) for label in labels})
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(name for row in rows for name in row)))
    fixed = ["corpus", "actor", "gender", "clips", "mean_lufs", "mean_silence"]
    for label in [name for name in frame if name not in fixed]:
        frame[label] = frame[label].astype("Int64")
    return Table("speakers", "Clips per speaker and class", frame)


def missing_cells(parts: Sequence[Part]) -> Table:
    """Speakers without a clip of a class that their corpus has."""
    rows = []
    for part in _own(parts):
        known = part.clips[part.clips["actor"] != ""]
        counts = pd.crosstab(known["actor"], known["class_id"])
        for actor, row in counts.iterrows():
            if lacking := [str(label) for label, n in row.items() if n == 0]:
                rows.append((part.name, str(actor), len(lacking), ", ".join(lacking)))
    frame = pd.DataFrame(rows, columns=["corpus", "actor", "number", "classes"])
    return Table("missing_cells", "Speakers without a clip of some class", frame)


def measures(parts: Sequence[Part]) -> Table:
    """Quantiles of what was measured of the samples."""
    rows = []
    for part in parts:
        for column, name in MEASURES.items():
            found = part.clips[column]
            row = {"corpus": part.name, "measure": name, "min": found.min(), "5%": found.quantile(0.05)}
            row |= {"median": found.median(), "mean": found.mean(), "95%": found.quantile(0.95), "max": found.max()}
            rows.append(row)
    return Table("measures", "Levels, silence, clipping, offset and bandwidth of the clips", pd.DataFrame(rows))


def exact_duplicates(clips: pd.DataFrame, manifests: Mapping[str, Manifest]) -> Table:
    """Recordings whose samples are identical; within a corpus those with another label are among the dropped clips."""
    rows = []
    doubled = clips[clips["audio_sha256"].duplicated(keep=False)]
    for _, group in doubled.groupby("audio_sha256", sort=False):
        names = [
            f"{corpus}/{path} ({label})"
            for corpus, path, label in zip(group["corpus"], group["path"], group["class_id"], strict=True)
        ]
        labels = "same label" if group["class_id"].nunique() == 1 else "other label"
        rows.append(("+".join(sorted(set(group["corpus"]))), labels, len(group), ", ".join(sorted(names))))
    for name, manifest in manifests.items():
        torn = manifest.dropped[manifest.dropped["reason"].str.startswith(OTHER_LABEL)]
        seen = {_members(path, reason) for path, reason in torn.itertuples(index=False)}
        told = [(len(group), ", ".join(f"{name}/{one}" for one in group)) for group in seen]
        rows += [(name, "other label: dropped", number, which) for number, which in told]
    frame = pd.DataFrame(sorted(rows), columns=["corpus", "labels", "clips", "which"])
    return Table("exact_duplicates", "Identical recordings", frame)


def _members(path: str, reason: str) -> tuple[str, ...]:
    """All clips of one recording that stands under several labels, from the reason why one of them is dropped."""
    own, _, others = reason.removeprefix(OTHER_LABEL).partition(") are also those of ")
    return tuple(sorted([f"{path} ({own})", *others.split(", ")]))


def near_duplicate_pairs(clips: pd.DataFrame, prints: Sequence[Fingerprint]) -> Table:
    """Pairs of clips that sound like one recording (`audio/fingerprint.py`), identical ones apart."""
    shas, labels, owners = (clips[name].tolist() for name in ("audio_sha256", "class_id", "speaker"))
    names = (clips["corpus"] + "/" + clips["path"]).tolist()
    rows = []
    for pair in near_duplicates(prints):
        one, other = pair.one, pair.other
        if shas[one] == shas[other]:
            continue
        rows.append(
            {
                "one": names[one],
                "other": names[other],
                "ber": round(pair.ber, 3),
                "offset_seconds": round(pair.offset_seconds, 2),
                "speaker": "unknown" if not owners[one] else "same" if owners[one] == owners[other] else "other",
                "labels": labels[one] if labels[one] == labels[other] else f"{labels[one]} / {labels[other]}",
            }
        )
    columns = ["one", "other", "ber", "offset_seconds", "speaker", "labels"]
    return Table(
        "near_duplicates", "Near duplicates: clips that sound like one recording", pd.DataFrame(rows, columns=columns)
    )


def sentences(parts: Sequence[Part]) -> Table:
    """Clips per sentence and class."""
    rows = []
    for part in _own(parts):
        known = part.clips[part.clips["sentence"] != ""]
        for sentence, clips in known.groupby("sentence", sort=True):
            counts = clips["class_id"].value_counts()
            row: dict[str, Any] = {"corpus": part.name, "sentence": sentence, "clips": len(clips)}
            rows.append(row | {label: int(counts.get(label, 0)) for label in sorted(set(part.clips["class_id"]))})
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(name for row in rows for name in row)))
    for label in frame.columns[3:]:
        frame[label] = frame[label].astype("Int64")
    return Table("sentences", "Clips per sentence and class", frame)


def sentence_dependence(parts: Sequence[Part]) -> Table:
    """Whether the sentence gives the class away."""
    rows = []
    for part in _own(parts):
        known = part.clips[part.clips["sentence"] != ""]
        if known.empty:
            continue
        counts = pd.crosstab(known["sentence"], known["class_id"])
        rows.append(
            {
                "corpus": part.name,
                "sentences": len(counts),
                "clips_without_sentence": len(part.clips) - len(known),
                "sentences_of_one_class": int(((counts > 0).sum(axis=1) == 1).sum()),
                "empty_cells": int((counts == 0).to_numpy().sum()),
                "cramers_v": cramers_v(counts.to_numpy()),
            }
        )
    columns = ["corpus", "sentences", "clips_without_sentence", "sentences_of_one_class", "empty_cells", "cramers_v"]
    title = "Sentence and class: Cramer's V is 0 where they are independent and 1 where the sentence tells the class"
    return Table("sentence_dependence", title, pd.DataFrame(rows, columns=columns))


def cramers_v(counts: npt.NDArray[np.int64]) -> float | None:
    """Association of rows and columns of a table of counts, in [0, 1]; None with one row or one column.

    With Bergsma's correction for bias ("A bias-correction for Cramer's V and Tschuprow's T", Journal of the Korean
    Statistical Society 42, 2013), without which many rare sentences look like dependence.
    """
    table = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0].astype(float)
    n, (rows, columns) = table.sum(), table.shape
    if min(rows, columns) < 2 or n < 2:
        return None
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = float(((table - expected) ** 2 / expected).sum() / n)
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    rows, columns = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    smaller = min(rows, columns) - 1
    return float(np.sqrt(phi2 / smaller)) if smaller > 0 else None


def values(parts: Sequence[Part]) -> Table:
    """Clips per language, intensity, style and partition, where a corpus knows them."""
    rows = []
    for part in parts:
        for column in ("language", "intensity", "style", "partition"):
            if (part.clips[column] == "").all():
                continue
            counts = part.clips[column].value_counts()
            rows += [(part.name, column, str(value) or "(none)", int(counts[value])) for value in sorted(counts.index)]
    return Table(
        "values",
        "Languages, intensities, styles and partitions",
        pd.DataFrame(rows, columns=["corpus", "column", "value", "clips"]),
    )


def votes(parts: Sequence[Part]) -> Table:
    """How far raters agree, per class; without rows where no votes are published."""
    rows = []
    for part in _own(parts):
        columns = [name for name in part.clips if str(name).startswith(VOTES_PREFIX)]
        cast = part.clips[columns].fillna(0.0) if columns else part.clips[[]]
        rated = part.clips[cast.sum(axis=1) > 0]
        if rated.empty:
            continue
        for label, clips in [*rated.groupby("class_id", sort=True), ("all", rated)]:
            numbers = clips[columns].fillna(0.0).to_numpy(float)
            shares = numbers / numbers.sum(axis=1, keepdims=True)
            entropy = -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=1)
            own = clips["class_id"].map({str(name).removeprefix(VOTES_PREFIX): n for n, name in enumerate(columns)})
            top = numbers.max(axis=1)
            agree = [not np.isnan(at) and row[int(at)] == best for row, at, best in zip(numbers, own, top, strict=True)]
            row = {"corpus": part.name, "class": label, "clips": len(clips), "mean_votes": numbers.sum(axis=1).mean()}
            row |= {"mean_entropy_bits": entropy.mean(), "median_entropy_bits": np.median(entropy)}
            row |= {"unanimous_share": np.mean(entropy == 0), "most_voted_is_class_share": np.mean(agree)}
            rows.append(row)
    columns = ["corpus", "class", "clips", "mean_votes", "mean_entropy_bits", "median_entropy_bits", "unanimous_share",
               "most_voted_is_class_share"]  # fmt: skip
    return Table("votes", "Votes of the raters", pd.DataFrame(rows, columns=columns))


def ratings(parts: Sequence[Part], specs: Sequence[CorpusSpec]) -> Table:
    """Ranges of valence, arousal and dominance, where a corpus has them."""
    scales = {
        spec.name: corpora.rating_scale(corpora.get(spec.reader)) for spec in specs if isinstance(spec, NamedCorpus)
    } | {spec.name: spec.rating_scale for spec in specs if isinstance(spec, CsvCorpus)}
    rows = []
    for part in _own(parts):
        for name in RATINGS:
            found = part.clips[name].dropna().astype(float)
            if found.empty:
                continue
            low, high = scales.get(part.name) or (None, None)
            row = {"corpus": part.name, "rating": name, "clips": len(found), "min": found.min(), "mean": found.mean()}
            rows.append(row | {"sd": found.std(ddof=1), "max": found.max(), "scale_low": low, "scale_high": high})
    columns = ["corpus", "rating", "clips", "min", "mean", "sd", "max", "scale_low", "scale_high"]
    return Table("ratings", "Ratings", pd.DataFrame(rows, columns=columns))


def task_table(experiment: Experiment, manifests: Mapping[str, Manifest]) -> Table:
    """What the task of an experiment makes of every label: a class, or nothing."""
    spec = experiment.spec
    clips = {name: manifest.clips for name, manifest in manifests.items()}
    rows = []
    for train in spec.train:
        _, kept = make_task(spec.task_map, train, spec.test, clips, source=str(experiment.file))
        names = list(dict.fromkeys(corpus.name for corpus in (*train, *spec.test)))
        own = pd.concat([clips[name][["corpus", "path", "class_id"]] for name in names])
        both = own.merge(
            kept[["corpus", "path", "class_id"]], on=["corpus", "path"], how="left", suffixes=("", "_task")
        )
        both["class_id_task"] = both["class_id_task"].fillna("(left out)")
        sizes = both.groupby(["corpus", "class_id", "class_id_task"], sort=True).size().rename("clips").reset_index()
        sizes.insert(0, "trained_on", "+".join(corpus.name for corpus in train))
        rows += list(_rows(sizes))
    columns = ["trained_on", "corpus", "label", "class", "clips"]
    return Table("task", "What the task makes of the labels", pd.DataFrame(rows, columns=columns))


def _left(name: str, title: str, tables: Mapping[str, pd.DataFrame]) -> Table:
    frame = pd.concat([table.assign(corpus=corpus) for corpus, table in tables.items()], ignore_index=True)
    frame = frame[["corpus", "path", "reason"]]
    if len(frame) <= _TEXT_ROWS // 2:
        return Table(name, title, frame)
    counts = frame.groupby(["corpus", "reason"], sort=True).agg(clips=("path", "size"), first=("path", "min"))
    return Table(name, title, frame, counts.reset_index()[["corpus", "clips", "reason", "first"]])


def _notes(
    parts: Sequence[Part], manifests: Mapping[str, Manifest], prints: Sequence[Fingerprint], exact: Table, near: Table
) -> list[str]:
    notes = []
    for part in _own(parts):
        clips = part.clips
        if is_band_limited(median := float(clips["bandwidth_hz"].median())):
            notes.append(f"{part.name}: {bandwidth_words(median)}")
        if not manifests[part.name].speakers_known:
            notes.append(f"{part.name}: SPEAKERS UNKNOWN")
        if clipped := int((clips["clipped_share"] > 0).sum()):
            notes.append(f"{part.name}: {clipped} of {len(clips)} clips have flat tops at full scale")
        if over := int((clips["peak"] > 1).sum()):
            notes.append(
                f"{part.name}: {over} of {len(clips)} clips exceed full scale, as lossy copies of clipped ones do"
            )
    torn = [pair for pair in near.frame["labels"] if " / " in pair]
    if len(near.frame):
        notes.append(f"{len(near.frame)} pairs of clips sound like one recording, {len(torn)} of them under two labels")
    for labels, text in (
        ("same label", "recordings stand under several names with one label"),
        ("other label", "recordings stand under several names with several labels"),
        ("other label: dropped", "recordings stand under several labels in their corpus, and are dropped"),
    ):
        if number := int(exact.frame["labels"].eq(labels).sum()):
            notes.append(f"{number} {text}")
    if short := sum(len(one.words) < MIN_WORDS for one in prints):
        notes.append(f"{short} clips are too short (under 0.95 s) to be compared with others by their sound")
    return notes


def _source(spec: CorpusSpec, manifest: Manifest) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": spec.kind, "root": str(manifest.root), "manifest_sha256": manifest.sha256}
    said["speakers_known"] = manifest.speakers_known
    if isinstance(spec, NamedCorpus):
        reader = corpora.get(spec.reader)
        said |= {"title": reader.TITLE, "licence": reader.LICENCE, "expected_clips": reader.EXPECTED_CLIPS}
        said |= {"expected_speakers": reader.EXPECTED_SPEAKERS}
    return said


def _own(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part.name != POOLED] if len(parts) > 1 else list(parts)


def _has(parts: Sequence[Part], column: str, value: str) -> bool:
    return any((part.clips[column] == value).any() for part in parts)


def _number_of(column: pd.Series[Any], known: pd.Series[bool]) -> int:
    return int(column[known].nunique())


def _concerns(frame: pd.DataFrame, names: Sequence[str]) -> int:
    """Rows of a table of duplicates that concern one of these corpora."""
    if "corpus" in frame:
        return sum(bool(set(text.split("+")) & set(names)) for text in frame["corpus"])
    return sum(
        bool({one.split("/")[0], other.split("/")[0]} & set(names))
        for one, other in zip(frame["one"], frame["other"], strict=True)
    )


def _counted_by(parts: Sequence[Part], column: str) -> pd.DataFrame:
    counts = {part.name: part.clips[column].value_counts() for part in parts}
    frame = pd.DataFrame(counts).fillna(0).astype(int).sort_index()
    return frame.rename_axis(column).reset_index()


def _rows(frame: pd.DataFrame) -> Iterable[tuple[Any, ...]]:
    return frame.itertuples(index=False, name=None)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
            return None
        return value.item() if isinstance(value, np.generic) else value

    names = [str(column) for column in frame.columns]
    return [{name: plain(value) for name, value in zip(names, row, strict=True)} for row in _rows(frame)]


def _cell(value: Any) -> str:
    """A value as text: whole numbers whole, others with four digits, nothing for what is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isinf(number):
            return "" if number > 0 else "-inf"
        return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"
    return str(value)


def _aligned(frame: pd.DataFrame) -> list[str]:
    """A table as lines of at most `WIDTH` characters: numbers to the right, long texts cut, wide tables folded."""
    texts = [[_cell(value) for value in row] for row in _rows(frame)]
    right = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    header = [str(column).split("_") for column in frame.columns]  # one word below the other
    height = max(map(len, header))
    header = [[""] * (height - len(words)) + words for words in header]
    full = [max(len(cell) for cell in [*words, *(row[n] for row in texts)]) for n, words in enumerate(header)]
    widths = [min(_CELL, width) for width in full]
    for n in sorted(range(len(widths)), key=full.__getitem__):  # long texts share what is left of the line
        free = WIDTH - sum(widths) - 2 * (len(widths) - 1)
        widths[n] = min(full[n], widths[n] + max(0, free))
    blocks: list[list[int]] = [[]]
    for n, width in enumerate(widths):
        if blocks[-1] and sum(widths[m] + 2 for m in blocks[-1]) + width > WIDTH:
            blocks.append([0, 1] if n > 1 else [])
        blocks[-1].append(n)

    def line(cells: Sequence[str], block: Sequence[int]) -> str:
        shown = []
        for n in block:
            text = cells[n] if len(cells[n]) <= widths[n] else f"{cells[n][: widths[n] - 1]}…"
            shown.append(text.rjust(widths[n]) if right[n] else text.ljust(widths[n]))
        return "  ".join(shown).rstrip()

    lines = [*([words[n] for words in header] for n in range(height)), *texts]
    return [shown for block in blocks for cells in lines if (shown := line(cells, block))]
