"""A cleaned copy of a folder, a CSV corpus or a named corpus, with a table and a record of how it was made."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
from filelock import FileLock, Timeout

from ser_eval.run_folder import VOTES_PREFIX, write_json, write_table
from ser_scripts import __version__, corpora
from ser_scripts.audio import decode
from ser_scripts.audio.decode import Samples, UnreadableAudio
from ser_scripts.audio.preprocess import apply_chain, chain_inputs, resolve_chain, sounds_in, versions
from ser_scripts.errors import BadInput
from ser_scripts.manifest import MIN_SECONDS, survey
from ser_scripts.runs.check import corpus_spec
from ser_scripts.runs.plan import load_experiment
from ser_scripts.runs.progress import counter
from ser_scripts.settings import folders
from ser_scripts.specs.base import Spec, parse
from ser_scripts.specs.corpora import CsvCorpus
from ser_scripts.specs.preprocess import PreprocessSpec

RECORD, TABLE = "preprocess.json", "clips.csv"
FORMATS = {("wav", 32): "FLOAT", ("wav", 16): "PCM_16", ("flac", 16): "PCM_16"}
"""What can be written: container and bits to the name of the sample format. FLAC has no float samples."""
_MARK = ".ser-preprocess"
"""Marks a partial folder as one of ours, which the next try may delete."""
_SHOWN = 10


class Chain(Spec):
    """What `--chain` holds, inside the list."""

    preprocess: tuple[PreprocessSpec, ...]


@dataclass(frozen=True)
class Options:
    """How the copy is written."""

    rate_hz: int | None
    """None: the rate that the chain leaves, the clip's own unless a step changes it."""
    container: str
    bits: int
    jobs: int
    allow_dropped: bool
    """Go on without files that cannot be read or that the chain refuses."""


class _Source(NamedTuple):
    """What is copied."""

    name: str
    root: Path
    paths: list[str]
    """POSIX, relative to `root`."""
    table: pd.DataFrame
    """One row per path: path, and what the corpus says."""
    faults: dict[str, str]
    """Clips that cannot be used, and why."""
    is_list: bool = False
    """The paths stand in a CSV: what is written beside them is never taken for one of them."""


class _Written(NamedTuple):
    """What one file became."""

    path: str
    source_sha256: str
    sha256: str
    rate_hz: int
    seconds: float
    events: tuple[str, ...]
    clipped_samples: int
    """Beyond full scale, and cut to it; always 0 with 32 bits, which have room for them."""


def read_chain(chain: str | None, experiment: Path | None) -> tuple[tuple[PreprocessSpec, ...], Path]:
    """The chain of the command line, and the folder that its relative paths resolve against.

    Args:
        chain: a JSON list, or a file that holds one
        experiment: an experiment, whose `preprocess` is taken

    Raises:
        BadInput: not exactly one of them is given, or the chain is not valid or empty
    """
    if (chain is None) == (experiment is None):
        raise BadInput("ser preprocess: give one of --chain FILE|'[...]' and --experiment FILE")
    if experiment is not None:
        spec, base, source = load_experiment(experiment).spec.preprocess, experiment.parent, str(experiment)
    else:
        assert chain is not None
        inline = chain.lstrip().startswith("[")
        source, base = ("--chain", Path()) if inline else (chain, Path(chain).parent)
        if not inline and not Path(chain).is_file():
            raise BadInput(f"--chain: {chain!r} is neither a JSON list nor a file")
        try:
            content = json.loads(chain if inline else Path(chain).read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{source} is not valid JSON: {error}") from None
        spec = parse(Chain, {"preprocess": content}, source=source, kind="chain").preprocess
    if not spec:
        raise BadInput(f"{source}: the chain has no step")
    return spec, base


def preprocess_corpus(
    what: str,
    out: Path,
    chain: Sequence[PreprocessSpec],
    base: Path,
    options: Options,
    *,
    say: Callable[[str], None],
) -> list[str]:
    """Write a cleaned copy; returns what to print.

    The copy is built as `<out>.partial` and renamed when it is complete. After a stop the same command starts again.

    Args:
        what: a corpus that the project knows, a CSV of clips, or a folder of sound files
        out: a folder that does not exist, or is empty
        chain: the steps
        base: folder that relative paths of the chain resolve against
        options: how the copy is written
        say: told of progress

    Raises:
        BadInput: `out` is in the way or inside what is read, or files cannot be read or are refused by the chain, and
            `options.allow_dropped` is not set
    """
    if (options.container, options.bits) not in FORMATS:
        valid = ", ".join(f"--format {container} --bits {bits}" for container, bits in FORMATS)
        raise BadInput(f"--format {options.container} --bits {options.bits} cannot be written; valid: {valid}")
    resolved = resolve_chain(chain, base)
    source = _read_source(what, say)
    out = out.absolute()
    _refuse_place(out, source)
    targets = _targets(source, options.container)
    partial_folder = out.with_name(f"{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f"{out.name}.lock"))
    try:
        with lock.acquire(blocking=False):
            try:
                _clear(partial_folder)
                lines = _write(source, targets, partial_folder, resolved, base, options, say)
                (partial_folder / _MARK).unlink()
                if out.is_dir():
                    out.rmdir()  # it is empty
                partial_folder.rename(out)
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise BadInput(f"another `ser preprocess` is writing {out}") from None
    except OSError as error:
        raise BadInput(f"cannot write to {partial_folder}: {error.strerror or error}") from None
    return [*lines, f"{out}: the copy, {TABLE} and {RECORD}"]


def _read_source(what: str, say: Callable[[str], None]) -> _Source:
    if Path(what).is_dir() and what not in corpora.names():
        root = Path(what).absolute()
        paths = [path.relative_to(root).as_posix() for path in sounds_in(root)]
        if not paths:
            raise BadInput(f"{root} holds no {', '.join(decode.SUFFIXES)} file")
        return _Source(root.name, root, paths, pd.DataFrame({"path": paths}), {})
    where, spec = folders(), corpus_spec(what)
    manifest = survey(
        spec,
        data=where.data,
        locations=where.locations,
        cache=where.cache,
        base=Path(),
        progress=counter(say, f"reading {what}"),
    )
    clips = manifest.clips
    columns = ["path", "class_id", *(["actor", "gender"] if manifest.speakers_known else [])]
    columns += [
        column
        for column in ("group", "sentence", "language", "intensity", "style", "partition")
        if (column != "group" or manifest.speakers_known)
        and (clips[column] != clips["actor"] if column == "group" else clips[column] != "").any()
    ]
    columns += [VOTES_PREFIX + label for label in manifest.votes]
    faults = dict(manifest.dropped.itertuples(index=False, name=None))
    return _Source(
        manifest.corpus, manifest.root, list(clips["path"]), clips[columns], faults, is_list=isinstance(spec, CsvCorpus)
    )


def _refuse_place(out: Path, source: _Source) -> None:
    here, there = out.resolve(), source.root.resolve()
    if there.is_relative_to(here) or (here.is_relative_to(there) and not source.is_list):
        raise BadInput(
            f"{out}: the copy would lie inside what is read, or around it ({source.root}); name another folder"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists and is not an empty folder; name another one, or move it away")


def _targets(source: _Source, suffix: str) -> list[str]:
    """Where each clip goes, below the copy."""
    targets: dict[str, str] = {}
    for path in source.paths:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise BadInput(f"{path} lies outside {source.root}, so its copy has no place; move the CSV above its clips")
        target = str(pure.with_suffix(f".{suffix}"))
        if target in targets:
            raise BadInput(f"{source.root}: {targets[target]} and {path} would both become {target}")
        targets[target] = path
    return list(targets)


def _clear(partial_folder: Path) -> None:
    """Delete what an earlier try left, and nothing else."""
    if not partial_folder.exists():
        return
    if not (partial_folder / _MARK).is_file():
        raise BadInput(f"{partial_folder} is in the way and was not left by an earlier try; move it away")
    shutil.rmtree(partial_folder)


def _write(
    source: _Source,
    targets: Sequence[str],
    folder: Path,
    chain: Sequence[PreprocessSpec],
    base: Path,
    options: Options,
    say: Callable[[str], None],
) -> list[str]:
    folder.mkdir()
    (folder / _MARK).touch()
    for parent in sorted({str(PurePosixPath(target).parent) for target in targets}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
    work = partial(_clean, source.name, source.root, folder, tuple(chain), options)
    items = list(zip(source.paths, targets, strict=True))
    written: dict[str, _Written] = {}
    dropped = dict(source.faults)
    results = decode.in_order(work, items, workers=options.jobs, progress=counter(say, "preprocessing"))
    for (path, _), result in zip(items, results, strict=True):
        if isinstance(result, str):
            dropped[path] = result
        else:
            written[path] = result
    if dropped and not options.allow_dropped:
        shutil.rmtree(folder)
        listing = [f"  {path}: {reason}" for path, reason in sorted(dropped.items())[:_SHOWN]]
        more = [f"  ... and {len(dropped) - _SHOWN} more"] if len(dropped) > _SHOWN else []
        raise BadInput(
            "\n".join([f"{source.root}: {len(dropped)} clips cannot be copied:", *listing, *more])
            + "\nMend them, or go on without them with --allow-dropped; nothing was written."
        )
    if not written:
        shutil.rmtree(folder)
        raise BadInput(f"{source.root}: none of the {len(dropped)} clips can be copied; nothing was written")
    kept = source.table[source.table["path"].isin(written)]
    write_table(folder / TABLE, kept.assign(path=[written[path].path for path in kept["path"]]))
    events = Counter(event for clip in written.values() for event in clip.events)
    clipped = sum(clip.clipped_samples for clip in written.values())
    record = {
        "sertain": __version__,
        "source": {"name": source.name, "folder": str(source.root)},
        "preprocess": [step.model_dump(mode="json") for step in chain],
        "inputs": chain_inputs(chain, base),
        "versions": {**versions(chain), "soxr": version("soxr")},
        "format": options.container,
        "bits": options.bits,
        "rate_hz": options.rate_hz,
        "clips": len(written),
        "events": dict(sorted(events.items())),
        "clipped_samples": clipped,
        "dropped": dict(sorted(dropped.items())),
        "files": [{"source": path, **written[path]._asdict()} for path in sorted(written)],
    }
    write_json(folder / RECORD, record)
    lines = [f"{len(written)} clips of {source.root}" + (f", {len(dropped)} dropped" if dropped else "")]
    lines += [f"  {event}: {count} clips" for event, count in sorted(events.items())]
    if clipped:
        loud = sum(clip.clipped_samples > 0 for clip in written.values())
        lines.append(f"  clipped at full scale: {clipped} samples in {loud} clips (--bits 32 keeps them)")
    return lines


def _clean(
    corpus: str, root: Path, folder: Path, chain: Sequence[PreprocessSpec], options: Options, item: tuple[str, str]
) -> _Written | str:
    """Write one file; or why it cannot be copied."""
    path, target = item
    try:
        samples, native_hz = decode.read(root / path)
        mono = decode.to_mono(samples)
        if len(mono) < MIN_SECONDS * native_hz:
            return f"it lasts {len(mono) / native_hz:.3f} s, less than {MIN_SECONDS} s"
        if not np.isfinite(mono).all():
            return "some of its samples are not finite (NaN or infinite)"
        done = apply_chain(mono, native_hz, chain, clip_key=f"{corpus}/{path}")
    except UnreadableAudio as error:
        return error.reason
    except BadInput as error:
        return str(error)
    rate_hz = options.rate_hz or done.rate_hz
    data, clipped = encode(
        decode.resample(done.samples, done.rate_hz, rate_hz), rate_hz, options.container, options.bits
    )
    (folder / target).write_bytes(data)
    with (root / path).open("rb") as stream:
        source_sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    seconds = len(done.samples) / done.rate_hz
    return _Written(target, source_sha256, hashlib.sha256(data).hexdigest(), rate_hz, seconds, done.events, clipped)


def encode(mono: Samples, rate_hz: int, container: str, bits: int) -> tuple[bytes, int]:
    """The bytes of a sound file, and how many samples were clipped.

    With 16 bits samples are rounded without dither, and those beyond full scale are cut to it. The same samples give
    the same bytes (libsndfile writes the time of day into a float WAV, so that one is written by scipy).
    """
    clipped = 0
    data: Any = mono
    if bits == 16:
        scaled = np.rint(mono.astype(np.float64) * 32768)
        clipped = int(np.count_nonzero((scaled < -32768) | (scaled > 32767)))
        data = np.clip(scaled, -32768, 32767).astype(np.int16)
    stream = io.BytesIO()
    if container == "wav":
        from scipy.io import wavfile

        wavfile.write(stream, rate_hz, data)
    else:
        soundfile.write(stream, data, rate_hz, format="FLAC", subtype=FORMATS[container, bits])
    return stream.getvalue(), clipped
