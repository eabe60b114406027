"""What can be said and prepared before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ser_eval.run_folder import SPLIT_SIDES, read_json, run_name, write_json, write_table
from ser_scripts import corpora
from ser_scripts.errors import BadInput, about
from ser_scripts.files import writable_folder
from ser_scripts.leaks import counted
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.runs.conditions import describe_conditions
from ser_scripts.runs.execute import find_device
from ser_scripts.runs.plan import (
    Experiment,
    Plan,
    copies_across_sides,
    load_experiment,
    load_model,
    make_plan,
    near_copies,
)
from ser_scripts.runs.progress import counter
from ser_scripts.runs.search import check_search_models
from ser_scripts.runs.search_study import describe_search
from ser_scripts.runs.train_run import check_augmentations, check_models, check_targets
from ser_scripts.settings import Folders, folders
from ser_scripts.specs.base import parse, read_spec_file
from ser_scripts.specs.classical import AnyModel, ClassicalSpec
from ser_scripts.specs.corpora import AudioFolderCorpus, CorpusSpec, CsvCorpus, NamedCorpus
from ser_scripts.specs.model import PretrainedEncoder, RandomEncoder
from ser_scripts.specs.spectrogram import SpectrogramEncoder

BYTES_PER_PARAMETER = 4
_CLASSICAL_BYTES = 1e6
"""Of a fitted classical model: some arrays; its encoder stays where it is."""
_HEAD_BYTES = 2e6
"""Of a head over cached hidden states, likewise."""


def corpus_spec(what: str) -> CorpusSpec:
    """A corpus from a name, from the path of a CSV file, or from the path of a folder with one folder per class."""
    if what.endswith((".csv", ".tsv")):
        content = {"kind": "csv", "name": Path(what).stem, "path": str(Path(what).resolve())}
        return parse(CsvCorpus, content, source=what, kind="corpus (its file name is its name)")
    if Path(what).is_dir() and what not in corpora.names():
        content = {"kind": "audiofolder", "name": Path(what).resolve().name, "path": str(Path(what).resolve())}
        return parse(AudioFolderCorpus, content, source=what, kind="corpus (its folder's name is its name)")
    if "/" in what or "\\" in what:
        raise BadInput(
            f"{what}: no such folder; expected a corpus of `ser corpora`, a CSV of clips, or a folder of them"
        )
    return parse(NamedCorpus, {"name": what}, source=what, kind="corpus name")


def check_spec(
    file: Path,
    *,
    low_seed: int | None,
    high_seed: int | None,
    overrides: Sequence[str],
    allow_imports: Sequence[str],
    say: Callable[[str], None],
    allow_remote_code: bool = False,
) -> tuple[list[str], bool]:
    """Validate one spec file; returns what to print, and whether a split is refused or leaks."""
    content = read_spec_file(file, kind="spec")
    if "encoder" in content or "classifier" in content or ("model_path_or_name" in content and "train" not in content):
        model, messages = load_model(file, overrides=[item.removeprefix("model.") for item in overrides])
        if isinstance(model.encoder, RandomEncoder):  # transformers knows what its configuration may say
            from ser_scripts.modeling.encoders import build_encoder

            with about(f"{file}: model '{model.name}'"):
                build_encoder(model.encoder, models=None)
        lines = [*messages, f"{file}: model '{model.name}' is valid"]
        if isinstance(model.encoder, PretrainedEncoder) and not _is_here(model.encoder, folders()):
            lines.append(f"  encoder {model.encoder.model_path_or_name} is not on this machine: the hub will be asked")
        elif isinstance(model.encoder, PretrainedEncoder):
            lines += _code_lines(model.encoder, folders())
        return lines, False
    experiment = load_experiment(file, low_seed=low_seed, high_seed=high_seed, overrides=overrides)
    where = folders(remote_code=allow_remote_code)
    plan = make_plan(experiment, where, progress=say)
    lines = [*experiment.messages, f"{file}: experiment '{experiment.spec.name}' is valid"]
    for name, manifest in plan.manifests.items():
        size = f"{len(manifest.clips)} clips, {_speakers(manifest)}, {len(manifest.dropped)} dropped"
        lines.append(f"  corpus {name}: {size}")
        lines += [f"    preprocessing: {line}" for line in _event_lines(experiment, manifest, where, say)]
    for train, task in plan.tasks.items():
        where_trained = f"trained on {train}: " if len(plan.tasks) > 1 else ""
        lines += [f"  {where_trained}{line}" for line in task.lines()]
    distinct = {run.split.sha256 for run in plan.runs}
    possible = {run.split.possible if run.split.fold is None else None for run in plan.runs}  # a fold counts its own
    lines.append(
        f"  {counted(len(plan.runs), 'run')} over {counted(len(distinct), 'distinct split')}"
        + (f" of {next(iter(possible))} possible" if len(possible) == 1 and None not in possible else "")
    )
    for note in dict.fromkeys(note for run in plan.runs for note in run.split.notes):
        lines.append(f"  note: {note}")
    lines += [f"  refused: seed {seed}: {reason}" for seed, reason in plan.refused]
    lines += [f"  {line}" for line in describe_search(plan)]
    copies = near_copies(plan.manifests, where, say) if len(plan.manifests) == 1 else []
    crossing = sorted({pair for run in plan.runs for pair in copies_across_sides(run.split, copies)})
    if crossing:
        more = f", ... ({len(crossing)} in all)" if len(crossing) > 5 else ""
        lines.append(f"  near duplicates across sides: {', '.join(crossing[:5])}{more}")
    check_targets(plan)
    unchecked = check_models(plan.runs, where, device=find_device(None), download=False)
    check_search_models(plan, where, device=find_device(None), download=False)
    check_augmentations(plan, allow_imports)
    if unchecked:
        lines.append(f"  not built, since the encoder is not on this machine: {', '.join(unchecked)}")
    lines += _disk_lines(plan, where)
    lines += describe_conditions(plan, where, say)
    return lines, bool(plan.refused or crossing)


def _event_lines(experiment: Experiment, manifest: Manifest, where: Folders, say: Callable[[str], None]) -> list[str]:
    """What the preprocessing does to single clips of a corpus, counted; none where it treats all clips alike."""
    from ser_scripts.audio.store import preprocessing_events

    counts = preprocessing_events(
        manifest,
        experiment.spec.preprocess,
        where.cache,
        progress=counter(say, f"preprocessing {manifest.corpus}"),
        base=experiment.base,
    )
    return [f"{event}: {count} of {len(manifest.clips)} clips" for event, count in counts.items()]


def _speakers(manifest: Manifest) -> str:
    return f"{manifest.clips['actor'].nunique()} speakers" if manifest.speakers_known else "SPEAKERS UNKNOWN"


def _disk_lines(plan: Plan, where: Folders) -> list[str]:
    """Estimated disk: decoded clips once, and per run the weights it keeps; checkpoints exist for one run at a time."""
    seconds = sum(float(manifest.clips["duration_seconds"].sum()) for manifest in plan.manifests.values())
    lines = [f"  disk: about {seconds * 16000 * 4 / 1e9:.2f} GB of decoded clips under {where.cache}"]
    kept = peak = 0.0
    unknown = set()
    for run in plan.runs:
        size = _encoder_bytes(run.model, where)
        if size is None:
            unknown.add(run.model.name)
            continue
        kept += size if run.model.training.save_model != "none" else 0
        if isinstance(run.model, ClassicalSpec) or run.model.frozen:
            continue  # no checkpoints
        peak = max(peak, size * 5)  # checkpoint: weights and two moments; the new one stands beside best weights
    gigabytes = f"{kept / 1e9:.2f} GB of weights under {where.runs}, and {peak / 1e9:.2f} GB while a run lasts"
    lines.append(f"  disk: about {gigabytes}")
    if unknown:
        lines.append(f"  disk: not counted, since the encoder is not on this machine: {', '.join(sorted(unknown))}")
    return lines


def _encoder_bytes(model: AnyModel, where: Folders) -> float | None:
    """Bytes of an encoder's weights in float32; None when it is not on this machine."""
    if isinstance(model, ClassicalSpec):
        return _CLASSICAL_BYTES
    if model.frozen:
        return _HEAD_BYTES
    if isinstance(model.encoder, SpectrogramEncoder):
        from ser_scripts.modeling.spectrogram import count_parameters

        return float(count_parameters(model.encoder)) * BYTES_PER_PARAMETER
    if not isinstance(model.encoder, PretrainedEncoder):
        return 1e6 * BYTES_PER_PARAMETER
    files = _weight_files(model.encoder, where)
    return float(sum(_parameters(file) for file in files)) * BYTES_PER_PARAMETER if files else None


def _is_here(encoder: PretrainedEncoder, where: Folders) -> bool:
    return bool(_weight_files(encoder, where))


def _code_lines(encoder: PretrainedEncoder, where: Folders) -> list[str]:
    """Which code an encoder on this machine brings, read but not run."""
    from ser_scripts.modeling.places import resolve
    from ser_scripts.modeling.remote_code import OPTION, brings_code, read_code
    from ser_scripts.modeling.weights import CONFIG

    folder = resolve(encoder.model_path_or_name, revision=encoder.revision, models=where.models)
    if not isinstance(folder, Path) or not (folder / CONFIG).is_file():
        return []
    config = read_json(folder / CONFIG)
    if not brings_code(config):
        return []
    sums = read_code(config, folder).sums()
    listing = ", ".join(f"{name} (sha256 {checksum[:12]})" for name, checksum in sums.items())
    return [f"  encoder {encoder.model_path_or_name} runs on code of its own, with {OPTION} only: {listing}"]


def _weight_files(encoder: PretrainedEncoder, where: Folders) -> list[Path]:
    """The weights of an encoder on this machine; none where it is not."""
    name = encoder.model_path_or_name
    for place in [Path(name), *([where.models / name] if where.models else [])]:
        if files := sorted(place.glob("*.safetensors")) or sorted(place.glob("*.bin")):
            return files
    return []


def _parameters(file: Path) -> int:
    """Parameters of a safetensors file, from its header; a .bin file is taken for float32."""
    if file.suffix != ".safetensors":
        return file.stat().st_size // 4
    from safetensors import safe_open

    from ser_scripts.modeling.weights import check_headers

    check_headers([file])
    with safe_open(file, framework="np") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118  not a dict
    total = 0
    for shape in shapes:
        size = 1
        for extent in shape:
            size *= extent
        total += size
    return total


def prepare_corpora(what: str, *, say: Callable[[str], None]) -> list[str]:
    """Make the toy corpus, or read and check the corpora of an experiment; returns what to print."""
    where = folders()
    if what == "toy":
        writable_folder(where.data, remedy="set SER_DATA")
    if what.endswith(".json"):
        plan = make_plan(load_experiment(Path(what)), where, progress=say)
        lines = []
        for name, one in plan.manifests.items():
            lines.append(f"{name}: {len(one.clips)} clips, {_speakers(one)}")
            lines += [f"  preprocessing: {line}" for line in _event_lines(plan.experiment, one, where, say)]
        return lines
    if what == "toy":
        from ser_scripts.corpora import toy

        toy.generate(where.data / "toy", progress=counter(say, "making the toy corpus"))
    manifest = build_manifest(
        corpus_spec(what),
        data=where.data,
        locations=where.locations,
        cache=where.cache,
        base=Path(),
        progress=counter(say, f"reading {what}"),
    )
    return [f"{what}: {len(manifest.clips)} clips, {_speakers(manifest)} under {manifest.root}"]


def download_corpus(
    name: str, *, accept_licence: bool, archives: Sequence[Path], say: Callable[[str], None]
) -> list[str]:
    """Download a corpus, or unpack local archives of it, then read and check it; returns what to print."""
    from ser_scripts.download.corpus import download

    where = folders()
    folder = where.locations.get(name, where.data / name)
    download(name, folder, accept_licence=accept_licence, archives=archives, say=say)
    corpus = corpora.get(name)
    complete = f"{name}: complete with {corpus.EXPECTED_CLIPS or 'an unknown number of'} clips"
    speakers = f", {corpus.EXPECTED_SPEAKERS} speakers" if corpus.EXPECTED_SPEAKERS else ""
    return [*prepare_corpora(name, say=say), complete + speakers]


def write_splits(
    file: Path,
    out: Path,
    *,
    low_seed: int | None,
    high_seed: int | None,
    overrides: Sequence[str],
    say: Callable[[str], None],
) -> list[str]:
    """Write every split as `<out>/<train corpora>/seed-<n>[-fold-<k>].csv`, with splits.json beside."""
    plan = make_plan(
        load_experiment(file, low_seed=low_seed, high_seed=high_seed, overrides=overrides), folders(), progress=say
    )
    writable_folder(out, remedy="set --out")
    lines = [f"refused: seed {seed}: {reason}" for seed, reason in plan.refused]
    written: dict[str, dict[str, Any]] = {}
    for run in plan.runs:
        name = f"{'+'.join(run.train_corpora)}/{run_name(run.seed, run.split.fold)}.csv"
        if name in written:
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_table(out / name, run.split.table)
        sizes = {side: int((run.split.table["split"] == side).sum()) for side in SPLIT_SIDES}
        written[name] = {"sha256": run.split.sha256, "clips": sizes, "notes": list(run.split.notes)}
        shown = ", ".join(f"{side} {size}" for side, size in sizes.items() if size)
        lines.append(f"{out / name}: {shown}; sha256 {run.split.sha256[:12]}")
    if not written:
        raise BadInput("\n".join([f"{file}: no split could be drawn", *lines]))
    write_json(out / "splits.json", written)
    return lines
