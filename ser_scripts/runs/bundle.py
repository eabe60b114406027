"""One archive with all that an experiment's claims rest on, and nothing that is not ours to give: no audio, no weights.

    <name>/README.md, SHA256SUMS, ro-crate-metadata.json
    <name>/specs/            the experiment's JSON and its models', where the experiment was named by its file
    <name>/runs/<name>/...   plan, list of clips, and of every run spec, split, predictions, history, environment,
                             metrics; tables, statistics, report; of every search its trials and its winner

The same files give the same archive. Whoever gets it checks it and does evaluation and statistics again from the
predictions (`reproduce_bundle`), which needs neither corpora nor encoders nor a GPU.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from ser_eval import run_folder
from ser_scripts import __version__, corpora
from ser_scripts.download.extract import Limits, format_of, unpack
from ser_scripts.errors import BadInput, Finding
from ser_scripts.files import writable_folder
from ser_scripts.runs.bundle_studies import check_studies, study_files
from ser_scripts.runs.comparing import Compared, check_tolerance, compare_json, compare_tables
from ser_scripts.runs.plan import load_experiment
from ser_scripts.runs.reproduce import Reproduction, environment_differences

SUMS = "SHA256SUMS"
README = "README.md"
CRATE = "ro-crate-metadata.json"
TOLERANCE = 1e-9
"""What evaluation and statistics may differ by between machines: rounding in float64."""
KEPT_OF_AN_EXPERIMENT = (run_folder.PLAN, run_folder.CLIPS)
DERIVED = frozenset(
    {
        run_folder.METRICS,
        run_folder.RESULTS,
        run_folder.FOLDS,
        run_folder.SHORTCUTS,
        run_folder.ROBUSTNESS,
        run_folder.RATINGS,
        run_folder.RATING_BASELINES,
    }
)
"""What the evaluation writes beside `report/`; the statistics write `stats/`."""
_SUFFIXES = frozenset({".csv", ".json", ".md", ".txt", ".tex", ".html", ".svg", ".png", ".pdf"})
_PROVENANCE = frozenset({"libraries", "python", "input"})
"""Keys of statistics that say with what they were made."""
_FORMATS = {
    ".csv": "text/csv", ".json": "application/json", ".md": "text/markdown", ".txt": "text/plain",
    ".db": "application/vnd.sqlite3",
    ".html": "text/html", ".svg": "image/svg+xml", ".png": "image/png", ".pdf": "application/pdf", ".tex": "text/x-tex",
}  # fmt: skip


class Statistics(Protocol):
    """`ser_analysis.experiment.stats_of_experiment`: only the command line imports the statistics."""

    def __call__(self, folder: Path, *, margin: float | None) -> object:
        """Write `<folder>/stats/`."""


def write_bundle(folder: Path, out: Path | None, *, spec: Path) -> list[str]:
    """Pack an experiment; returns lines for a terminal.

    Args:
        folder: `<runs>/<experiment>`
        out: the archive; `<experiment>-bundle.zip` in the working directory when absent
        spec: what the user named the experiment by; when it is its JSON, that and its models' are packed, too

    Raises:
        BadInput: no finished run, runs without evaluation, no place to write to, or the library for metadata is missing
        Finding: runs of the plan are not finished, or have settings of a search that is not there
    """
    runs = run_folder.find_runs(folder)
    if not runs:
        raise BadInput(f"{folder} holds no finished run; train first")
    there = {run.path.relative_to(folder).as_posix() for run in runs}
    if missing := sorted(set(run_folder.planned_runs(folder)) - there):
        more = f", ... ({len(missing)} in all)" if len(missing) > 5 else ""
        raise Finding(
            f"{folder}: {len(missing)} planned runs are not finished, and results of a part are no result: "
            f"{', '.join(missing[:5])}{more}; train them, or take them out of the experiment"
        )
    stale = [run.path for run in runs if not (run.path / run_folder.METRICS).is_file()]
    if stale or not (folder / run_folder.RESULTS).is_file():
        raise BadInput(f"{stale[0] if stale else folder} is not evaluated; run `ser eval {spec}` first")
    if out is None:
        out = Path(f"{folder.name}-bundle.zip")
    if out.suffix != ".zip":
        raise BadInput(f"--out {out}: the archive is a zip; give it a name that ends in .zip")
    content: dict[str, bytes] = {
        f"runs/{folder.name}/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in _kept(folder, runs)
    }
    content |= _specs(spec)
    content[README] = _readme(folder, runs, content).encode()
    content[CRATE] = _crate(folder, runs, content)
    sums = "".join(f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content))
    content[SUMS] = sums.encode()
    _write_zip(out, folder.name, content)
    size = sum(map(len, content.values()))
    lines = [
        f"{out}: {len(content)} files of {len(runs)} runs, {out.stat().st_size / 1e6:.1f} MB ({size / 1e6:.1f} MB)"
    ]
    if not (folder / run_folder.STATS).is_dir():
        lines.append(f"there are no statistics in it; `ser stats {spec}` makes them")
    lines.append(f"its content: {hashlib.sha256(content[SUMS]).hexdigest()} (SHA-256 of its {SUMS}, to cite)")
    return lines


def _kept(folder: Path, runs: Sequence[run_folder.RunFolder]) -> Iterator[Path]:
    """The files of an experiment that are packed, in no order."""
    yield from (file for file in folder.iterdir() if file.is_file() and file.suffix in (".csv", ".json", ".md"))
    for name in (run_folder.STATS, run_folder.REPORT):
        yield from (file for file in (folder / name).rglob("*") if file.is_file() and file.suffix in _SUFFIXES)
    yield from study_files(folder, runs)
    for run in runs:
        yield from _inputs(run)
        yield run.path / run_folder.METRICS


def _inputs(run: run_folder.RunFolder) -> list[Path]:
    """What training has left of a run, but for its weights and logs."""
    files = [file for file in run.path.iterdir() if file.is_file() and file.suffix in (".csv", ".json", ".txt")]
    return [
        *sorted(file for file in files if file.name not in DERIVED),
        *sorted((run.path / run_folder.PREDICTIONS).glob("*.csv")),
    ]


def _specs(spec: Path) -> dict[str, bytes]:
    """The JSONs of an experiment that was named by its file."""
    if spec.suffix != ".json":
        return {}
    from ser_scripts.runs.plan import find_model

    experiment = load_experiment(spec)
    files = {f"specs/{spec.name}": spec}
    for name in experiment.spec.models:
        model = find_model(name, spec.parent)
        if (taken := files.setdefault(f"specs/models/{model.name}", model)) != model:
            raise BadInput(f"{taken} and {model} have one name; rename one, so that both can be packed")
    return {name: file.read_bytes() for name, file in files.items()}


def _ended(runs: Sequence[run_folder.RunFolder]) -> str:
    """When the last run ended, ISO 8601; the archive's date, since now would change its bytes."""
    return max(str(run.record.get("ended", "")) for run in runs) or "1970-01-01T00:00:00+00:00"


def _corpora_of(runs: Sequence[run_folder.RunFolder]) -> dict[str, dict[str, str]]:
    """Title, licence, citation and source of the corpora that take part; little of those that are not built in."""
    told = {}
    specs: dict[str, dict[str, Any]] = {}
    for run in runs:
        experiment = run.spec.get("experiment", {})
        specs |= {corpus["name"]: corpus for corpus in [*experiment.get("train", []), *experiment.get("test", [])]}
        specs |= {name: {} for name in run.record["manifest_sha256"] if name not in specs}  # `ser eval --on`
    for name, corpus in sorted(specs.items()):
        reader = corpus.get("reader") or name
        if corpus.get("kind") == "named" and reader in corpora.names():
            module = corpora.get(reader)
            told[name] = {
                "title": module.TITLE,
                "licence": module.LICENCE,
                "citation": module.CITATION,
                "source": module.SOURCE,
            }
        else:
            told[name] = {"title": name, "licence": "not known here: ask its owner", "citation": "", "source": ""}
    return told


def _readme(folder: Path, runs: Sequence[run_folder.RunFolder], content: dict[str, bytes]) -> str:
    results = run_folder.read_table(folder / run_folder.RESULTS, ["model", "augmentation", "test_corpus", "uar"])
    scores = results.assign(uar=pd.to_numeric(results["uar"], errors="coerce"))
    keys = ["model", "augmentation", "train_corpus", "test_corpus", "condition"]
    rows = [
        f"| {' | '.join(map(str, key))} | {len(group)} | {group['uar'].mean():.4f} | {group['uar'].std():.4f} |"
        for key, group in scores.groupby([key for key in keys if key in scores.columns], sort=True)
    ]
    sources = [
        f"- **{name}**: {about['title']}. Licence: {about['licence']}. {about['citation']}".rstrip()
        for name, about in _corpora_of(runs).items()
    ]
    commits = sorted({str(run.record["code"].get("commit")) for run in runs})
    specs = "`specs/` the experiment and its models; " if any(name.startswith("specs/") for name in content) else ""
    searched = []
    if any(run.record.get("search") for run in runs):
        searched = ["In `search/` each search for settings with all of its trials (an Optuna database) and its winner."]
    description = runs[0].record["description"]
    return "\n".join(
        [
            f"# {folder.name}",
            "",
            *([description, ""] if description else []),
            f"{len(runs)} runs of SERtain {__version__} (commits: {', '.join(commits)}), the last of {_ended(runs)}.",
            "",
            f"| {' | '.join(key for key in keys if key in scores.columns)} | runs | mean UAR | SD |",
            f"|{'---|' * (sum(key in scores.columns for key in keys) + 3)}",
            *rows,
            "",
            "Mean and SD over runs are no interval and no test: `report/` and `stats/` have those.",
            "",
            "## What is in here",
            "",
            f"{specs}`runs/{folder.name}/` plan, list of clips with checksums of their samples, results, statistics,",
            "report; below it each run with its spec, split, predictions, learning curve, packages and hardware.",
            *searched,
            "There is no audio and there are no weights.",
            "",
            "## Check it, and do the analysis again",
            "",
            "```",
            "sha256sum --check SHA256SUMS          # every file as it was packed",
            f"ser reproduce {folder.name}-bundle.zip    # the same, then the analysis again from the predictions",
            "```",
            "",
            "With the corpora at hand a run is trained again by `ser reproduce <its folder>`.",
            "",
            "## Corpora",
            "",
            "The audio is to be had from its owners. Names of clips, labels and speakers here are theirs, under their",
            "licences; check them before you pass this archive on.",
            "",
            *sources,
            "",
        ]
    )


def _crate(folder: Path, runs: Sequence[run_folder.RunFolder], content: dict[str, bytes]) -> bytes:
    """RO-Crate 1.1 metadata of the archive."""
    try:  # by name: it has no type hints, and only this needs it
        entity: Any = importlib.import_module("rocrate.model.contextentity").ContextEntity
        crate: Any = importlib.import_module("rocrate.rocrate").ROCrate(version="1.1")
    except ModuleNotFoundError as error:
        raise BadInput(f"ser bundle needs the package '{error.name}': .venv/bin/pip install rocrate") from None
    root = crate.root_dataset
    root["datePublished"] = _ended(runs)
    root["name"] = f"Results of the experiment {folder.name}"
    root["description"] = runs[0].record["description"] or f"{len(runs)} runs of speech emotion recognition"
    root["license"] = "Not stated by those who packed it; the corpora's own licences hold for what is theirs"
    commits = sorted({str(run.record["code"]["commit"]) for run in runs if run.record["code"].get("commit")})
    software = crate.add(
        entity(
            crate,
            "#sertain",
            properties={
                "@type": "SoftwareApplication",
                "name": "SERtain",
                "softwareVersion": sorted({str(run.record["code"]["version"]) for run in runs}),
                "identifier": commits,
                "license": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        )
    )
    sources = [
        crate.add(
            entity(
                crate,
                f"#corpus-{name}",
                properties={
                    "@type": "Dataset",
                    "name": about["title"],
                    "license": about["licence"],
                    **({"citation": about["citation"]} if about["citation"] else {}),
                },
            )
        )
        for name, about in _corpora_of(runs).items()
    ]
    action = crate.add(
        entity(
            crate,
            "#runs",
            properties={"@type": "CreateAction", "name": f"{len(runs)} runs", "endTime": _ended(runs)},
        )
    )
    action["instrument"] = software
    action["object"] = sources
    action["result"] = root
    root["mentions"] = [action]
    for name in sorted(content):
        crate.add_file(
            dest_path=name,
            properties={
                "encodingFormat": _FORMATS.get(Path(name).suffix, "application/octet-stream"),
                "contentSize": str(len(content[name])),
                "sha256": hashlib.sha256(content[name]).hexdigest(),
            },
        )
    crate.name = root["name"]
    return (json.dumps(crate.metadata.generate(), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _write_zip(out: Path, top: str, content: dict[str, bytes]) -> None:
    """Write the archive, whole or not at all, with nothing in it that says when, where or by whom."""
    writable_folder(out.parent, remedy="set --out")
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(content):
                member = zipfile.ZipInfo(f"{top}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                member.create_system = 3
                member.external_attr = 0o100644 << 16
                archive.writestr(member, content[name])
        os.replace(temporary, out)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise BadInput(f"no space left for {out}; free some, or name another place with --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_bundle(what: Path) -> bool:
    """Whether something is (or claims to be) a bundle: a file, or a folder with its checksums."""
    return what.is_file() or (what / SUMS).is_file()


def reproduce_bundle(
    what: Path, *, statistics: Statistics, tolerance: float | None, out: Path | None, say: Callable[[str], None]
) -> Reproduction:
    """Check a bundle, then evaluate it and do its statistics again from its predictions, and compare.

    Args:
        what: the archive, or the folder that it was unpacked to
        statistics: does the statistics of an evaluated experiment's folder
        tolerance: absolute and relative difference of a number that counts as none; `TOLERANCE` when absent
        out: keep the new analysis here; in a temporary folder when absent
        say: takes lines about the progress

    Raises:
        BadInput: no bundle
        Finding: files are changed, missing or added, or the archive is damaged or not safe to unpack
    """
    tolerance = check_tolerance(tolerance, TOLERANCE)
    with tempfile.TemporaryDirectory(prefix="ser-bundle-") as scratch:
        place = what
        if what.is_file():
            place = Path(scratch) / "unpacked"
            unpack(what, place, format=format_of(what), strip=1, limits=Limits(unpacked_bytes=20 * 10**9))
        checked = check_sums(place, str(what))
        say(f"{what}: {checked} files are as they were packed")
        found = sorted((place / "runs").iterdir()) if (place / "runs").is_dir() else []
        if len(found) != 1 or not found[0].is_dir():
            raise BadInput(f"{what}: expected one experiment under runs/, found {len(found)}")
        packed = found[0]
        target = writable_folder(out if out is not None else Path(scratch) / "anew", remedy="give --out another folder")
        if any(target.iterdir()):
            raise BadInput(f"--out {out}: the folder is not empty; name a new one")
        anew = target / packed.name
        compared, others = _analyse_again(packed, anew, statistics, tolerance, say)
        runs = run_folder.find_runs(packed)
        differences = _environments(runs)
    notes = [f"the new analysis: {anew}"] if out is not None else []
    if others:
        notes.append(f"checked by their checksums only, since the analysis does not write them: {', '.join(others)}")
    return Reproduction(tuple(differences), tuple(compared), tuple(notes))


def _environments(runs: Sequence[run_folder.RunFolder]) -> list[str]:
    """What the environments of the runs have otherwise than this one; the first run speaks for those like it."""
    from ser_scripts.runs.train_run import environment

    texts = {
        (run.path / run_folder.ENVIRONMENT).read_text(encoding="utf-8"): run
        for run in reversed(runs)
        if (run.path / run_folder.ENVIRONMENT).is_file()
    }
    lines = []
    for text, run in sorted(texts.items(), key=lambda item: str(item[1].path)):
        of = f"{run.path.parent.parent.name}/{run.path.parent.name}/{run.path.name}: " if len(texts) > 1 else ""
        now = environment(str(run.record["device"]), run.spec)
        lines += [f"{of}{line}" for line in environment_differences(text, now)]
    return lines


def check_sums(folder: Path, name: str) -> int:
    """Compare every file of an unpacked bundle with its checksum; returns how many there are.

    Raises:
        BadInput: it has no checksums, or a line of them is none
        Finding: naming files that are changed, missing, or not listed
    """
    file = folder / SUMS
    if not file.is_file():
        raise BadInput(f"{name} is no bundle: it has no {SUMS}; `ser bundle` writes them")
    listed: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        digest, separator, path = line.partition("  ")
        inside = path and not Path(path).is_absolute() and ".." not in Path(path).parts
        if len(digest) != 64 or not separator or not inside or path in listed:
            raise BadInput(f"{name}: {SUMS}, line {number} is not '<64 hexadecimal digits>  <path>' of one file")
        listed[path] = digest
    there = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()
    }
    del there[SUMS]
    faults = [f"missing: {path}" for path in sorted(listed.keys() - there.keys())]
    faults += [f"not listed: {path}" for path in sorted(there.keys() - listed.keys())]
    faults += [
        f"changed: {path}"
        for path in sorted(listed.keys() & there.keys())
        if there[path].is_symlink() or hashlib.sha256(there[path].read_bytes()).hexdigest() != listed[path]
    ]
    if faults:
        more = [f"... ({len(faults)} in all)"] if len(faults) > 10 else []
        raise Finding("\n".join([f"{name} is not as it was packed:", *(f"  {fault}" for fault in faults[:10]), *more]))
    return len(listed)


def _analyse_again(
    packed: Path, anew: Path, statistics: Statistics, tolerance: float, say: Callable[[str], None]
) -> tuple[list[Compared], list[str]]:
    """Copy what is not derived, derive the rest, and compare tables and JSONs; also names what cannot be derived."""
    from ser_eval.evaluate import evaluate_experiment

    runs = run_folder.find_runs(packed)
    inputs = [packed / name for name in KEPT_OF_AN_EXPERIMENT if (packed / name).is_file()]
    inputs += study_files(packed, ())  # checked below; the report shows their pictures
    for run in runs:
        inputs += _inputs(run)
    for file in inputs:
        target = anew / file.relative_to(packed)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    evaluate_experiment(anew, progress=say)
    if (packed / run_folder.STATS).is_dir():
        say("doing the statistics")
        statistics(anew, margin=_margin(packed))
        evaluate_experiment(anew)  # the report shows the statistics
    with tempfile.TemporaryDirectory(prefix="ser-studies-") as scratch:
        compared = check_studies(packed, runs, Path(scratch), tolerance)
    kept = set(inputs)
    others = []
    for file in sorted(file for file in packed.rglob("*") if file.is_file() and file not in kept):
        name, new = file.relative_to(packed).as_posix(), anew / file.relative_to(packed)
        if file.suffix not in (".csv", ".json"):
            continue  # pages and pictures show these numbers; their bytes hang on fonts and library versions
        if not new.is_file():
            if file.name in DERIVED or name.startswith(f"{run_folder.STATS}/"):
                compared.append(Compared(name, "different", ("not made now",)))
            else:
                others.append(name)
        elif file.suffix == ".csv":
            compared.append(compare_tables(name, file, new, tolerance))
        else:
            compared.append(compare_json(name, file, new, tolerance, ignore=_PROVENANCE))
    return _grouped(compared), others


def _grouped(compared: list[Compared]) -> list[Compared]:
    """Identical metrics of many runs as one line."""
    metrics = [one for one in compared if one.name.endswith(f"/{run_folder.METRICS}") and one.verdict == "identical"]
    if len(metrics) < 2:
        return compared
    rest = [one for one in compared if one not in metrics]
    return [*rest, replace(metrics[0], name=f"{len(metrics)} x {run_folder.METRICS}")]


def _margin(packed: Path) -> float | None:
    """The margin of equivalence that the packed statistics were made with; None where they compare no pair."""
    for file in sorted((packed / run_folder.STATS).rglob("stats.json")):
        content = run_folder.read_json(file)
        for pair in content.get("pairs") or [] if isinstance(content, dict) else []:
            if isinstance(margin := (pair.get("tost") or {}).get("margin"), int | float):
                return float(margin)
    return None
