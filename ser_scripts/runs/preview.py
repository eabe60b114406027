"""What a model will hear: a clip as audio and as features, clean, preprocessed, and as augmentations change it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ser_eval.run_folder import read_json, write_json, write_text
from ser_scripts.errors import BadInput
from ser_scripts.files import writable_folder
from ser_scripts.manifest import Manifest
from ser_scripts.runs.plan import Plan, Run, load_experiment, make_plan
from ser_scripts.settings import Folders, folders
from ser_scripts.specs.augmentation import Transform
from ser_scripts.specs.base import nearest
from ser_scripts.specs.model import ModelSpec

RECORD, TEXT, PAGE = "preview.json", "preview.txt", "preview.png"
ROWS_PER_PAGE = 10
MAX_BATCHES = 10_000
"""Batches that are looked through for one that is mixed; with a probability of .001 one in 22,000 searches fails."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Variant:
    """One form of the clip."""

    name: str
    explanation: str
    samples: Array | None
    """None where only the features are changed."""
    features: Array
    file: str | None = None
    """Its WAV file in the folder."""


@dataclass(frozen=True)
class Heard:
    """What holds for every variant."""

    rate_hz: int
    feature_rate_hz: float
    """Rows of the features per second."""
    encoder: Any

    @property
    def on_samples(self) -> bool:
        """Whether the encoder hears samples, not a spectrogram."""
        return self.feature_rate_hz == self.rate_hz


def preview(
    file: Path,
    *,
    clip: str | None,
    out: Path | None,
    model: str | None,
    copies: int,
    overrides: Sequence[str],
    allow_imports: Sequence[str],
    say: Callable[[str], None],
    allow_remote_code: bool = False,
) -> list[str]:
    """Write audio, features and a page of pictures of one clip; returns what to print.

    What is drawn is what the first run of the experiment draws for this clip in its first epochs.

    Args:
        file: an experiment
        clip: `<corpus>/<path>`; the first training clip when None
        out: folder for the files; `<runs>/<experiment>/preview/<model>` when None
        model: name of one of the experiment's models; the first when None
        copies: epochs, that is draws of each augmentation
        overrides: `field=value` edits of the spec
        allow_imports: modules beyond the allow-list that augmentations may come from
        say: takes progress
        allow_remote_code: run the code of an encoder that brings its own

    Raises:
        BadInput: an unknown model or clip, or an experiment without a run
    """
    where = folders(remote_code=allow_remote_code)
    plan = make_plan(load_experiment(file, overrides=overrides), where, progress=say)
    runs = _runs(plan, file, model)
    corpus, path = _clip(clip, runs[0], plan)
    folder = out if out is not None else where.runs / plan.experiment.spec.name / "preview" / runs[0].model.name
    writable_folder(folder, remedy="set --out")
    heard, variants = _variants(runs, plan, (corpus, path), copies, allow_imports, where)
    _remove_earlier(folder)
    variants = [_with_file(variant, number, folder, heard) for number, variant in enumerate(variants, start=1)]
    pages = _draw_pages(variants, heard, folder, f"{corpus}/{path}")
    rows = runs[0].split.table
    row = rows[(rows["corpus"] == corpus) & (rows["path"] == path)].iloc[0]
    record = {
        "experiment": plan.experiment.spec.name,
        "model": runs[0].model.name,
        "encoder": heard.encoder.identity()["name"],
        "clip": {"corpus": corpus, "path": path, "label": row["class_id"], "side": row["split"]},
        "run": {"seed": runs[0].seed, "fold": runs[0].split.fold},
        "sample_rate_hz": heard.rate_hz,
        "features": {
            "kind": "samples" if heard.on_samples else "spectrogram",
            "rows_per_second": heard.feature_rate_hz,
            "stacked_frames": heard.encoder.stacked_frames,
        },
        "variants": [_described(variant, heard) for variant in variants],
        "files": [*(variant.file for variant in variants if variant.file), *pages, TEXT],
    }
    lines = _text(record)
    write_text(folder / TEXT, "\n".join(lines) + "\n")
    write_json(folder / RECORD, record)
    return [*lines, f"files: {folder} ({', '.join(pages)}, {TEXT}, {RECORD}, and a WAV file per row with one)"]


def _runs(plan: Plan, file: Path, model: str | None) -> list[Run]:
    """The runs of the first seed with one model, one of each augmentation."""
    names = [one.name for one in plan.experiment.models]
    if model is not None and model not in names:
        raise BadInput(f"{file}: --model {model}: no model of this name{nearest(model, names)}")
    runs = [run for run in plan.runs if run.model.name == (model or names[0])]
    if not runs:
        raise BadInput(f"{file}: every split is refused, so that no model is trained; `ser check {file}` says why")
    first = runs[0]
    if not isinstance(first.model, ModelSpec):
        raise BadInput(f"{file}: model '{first.model.name}' is a classical one, which goes without augmentation")
    same = (first.train, first.seed, first.split.fold)
    return [run for run in runs if (run.train, run.seed, run.split.fold) == same]


def _clip(wanted: str | None, run: Run, plan: Plan) -> tuple[str, str]:
    rows = run.split.table
    if wanted is None:
        row = rows[rows["split"] == "train"].sort_values(["corpus", "path"], kind="stable").iloc[0]
        return str(row["corpus"]), str(row["path"])
    corpus, _, path = wanted.partition("/")
    known = sorted(set(rows["corpus"]))
    if corpus not in known:
        raise BadInput(f"--clip {wanted}: expected CORPUS/PATH with one of the corpora {', '.join(known)}")
    paths = list(rows.loc[rows["corpus"] == corpus, "path"])
    if path not in paths:
        raise BadInput(f"--clip {wanted}: no clip of the task has this path in {corpus}{_near(path, paths)}")
    return corpus, path


def _near(path: str, paths: Sequence[str]) -> str:
    hint = nearest(path, paths)
    return hint if hint.startswith("; did") else f"; there are {len(paths)}, e.g. {min(paths)}"


def _variants(
    runs: Sequence[Run],
    plan: Plan,
    chosen: tuple[str, str],
    copies: int,
    allow_imports: Sequence[str],
    where: Folders,
) -> tuple[Heard, list[Variant]]:
    """Every form of the clip, in order."""
    from ser_scripts.augment import Augmenter
    from ser_scripts.modeling.encoders import build_encoder
    from ser_scripts.training.data import Clip, FeatureSource, TrainingSet, extract

    run = runs[0]
    encoder = build_encoder(run.network.encoder, models=where.models, remote_code=where.remote_code)
    table = run.split.table
    labels = list(run.labels)
    train = table[table["split"] == "train"]
    clips = [
        Clip(corpus, path, labels.index(label))
        for corpus, path, label in zip(train["corpus"], train["path"], train["class_id"], strict=True)
    ]
    place = next((number for number, clip in enumerate(clips) if (clip.corpus, clip.path) == chosen), None)
    if place is None:  # nothing is done to it in training; shown as if it were one of the training clips
        place = len(clips)
        clips.append(Clip(*chosen, 0))
    partner = next((number for number, clip in enumerate(clips) if clip.label != clips[place].label), None)
    needed = [clips[place]] if partner is None else [clips[place], clips[partner]]
    with tempfile.TemporaryDirectory() as scratch:
        clean = _stores(plan, needed, encoder.sample_rate_hz, run, Path(scratch), preprocessed=False)
        stores = _stores(plan, needed, encoder.sample_rate_hz, run, Path(scratch), preprocessed=True)
        heard = Heard(encoder.sample_rate_hz, _rows_per_second(encoder), encoder)
        first = np.array(clean[chosen[0]][chosen[1]])
        variants = [Variant("clean", "decoded, mono, at the encoder's rate", first, extract(encoder, first))]
        if run.experiment.preprocess:
            steps = " -> ".join(step.kind for step in run.experiment.preprocess)
            second = np.array(stores[chosen[0]][chosen[1]])
            variants.append(Variant("preprocessed", steps, second, extract(encoder, second)))
        for one in runs:
            if one.augmentation is None:
                continue
            augmenter = Augmenter(one.augmentation, seed=one.train_seed, allow_imports=allow_imports, base=one.base)
            training = TrainingSet(
                FeatureSource(clips, stores, encoder),
                seed=one.train_seed,
                augmenter=augmenter,
                max_seconds=one.network.training.max_seconds,
                num_labels=len(labels),
            )
            for epoch in range(copies):
                variants += _of_epoch(training, place, epoch)
                if one.augmentation.batch is not None and partner is not None:
                    variants.append(_mixed(training, place, partner, epoch, labels))
    return heard, variants


def _stores(
    plan: Plan, clips: Sequence[Any], rate_hz: int, run: Run, scratch: Path, *, preprocessed: bool
) -> dict[str, Any]:
    """Stores that hold a few clips only, built as training builds them."""
    from ser_scripts.audio.store import open_store

    chain = run.experiment.preprocess if preprocessed else ()
    wanted: dict[str, list[str]] = {}
    for clip in clips:
        wanted.setdefault(clip.corpus, []).append(clip.path)
    return {
        corpus: open_store(_only(plan.manifests[corpus], paths), rate_hz, chain, scratch, workers=1, base=run.base)
        for corpus, paths in wanted.items()
    }


def _only(manifest: Manifest, paths: Sequence[str]) -> Manifest:
    return replace(manifest, clips=manifest.clips[manifest.clips["path"].isin(paths)])


def _rows_per_second(encoder: Any) -> float:
    """Rows of the features that a second adds."""
    from ser_scripts.training.data import extract

    if encoder.fixed_seconds is not None:
        return len(extract(encoder, np.zeros(1, dtype=np.float32))) / float(encoder.fixed_seconds)
    noise = np.random.Generator(np.random.PCG64(0)).normal(0, 0.1, 3 * encoder.sample_rate_hz).astype(np.float32)
    one, three = (len(extract(encoder, noise[: seconds * encoder.sample_rate_hz])) for seconds in (1, 3))
    return (three - one) / 2


def _of_epoch(training: Any, place: int, epoch: int) -> list[Variant]:
    """What training hears of one clip in one epoch, without the copies that nothing is done to."""
    from ser_scripts.training.data import BatchKey, extract

    spec = training.augmenter.spec
    variants = []
    for item, (clip, transform) in enumerate(training.items):
        changes = spec.features or (spec.transforms if spec.mode == "on_the_fly" else transform)
        if clip != place or not changes:
            continue
        key = BatchKey(epoch, 0, item)
        samples = training.samples(key)
        features = training.masked(extract(training.source.encoder, np.array(samples)), key)
        name = f"{training.source.clips[clip].corpus}/{training.source.clips[clip].path}"
        done = [transform] if transform else training.augmenter.applied(epoch=epoch, clip_key=name)
        steps = [_steps(spec.transforms[step_name]) for step_name in done]
        steps += [mask.kind for mask in spec.features]
        label = f"{spec.name}{f': {transform}' if transform else ''}, epoch {epoch + 1}"
        heard = np.array(samples) if done or training.max_samples is not None else None
        variants.append(Variant(label, "; ".join(steps) or "drawn: nothing in this epoch", heard, features))
    if spec.mode == "on_the_fly":  # each alone as well: by chance some are not drawn
        variants += _alone(training, place, epoch)
    return variants


def _alone(training: Any, place: int, epoch: int) -> list[Variant]:
    from ser_scripts.training.data import extract

    clip, encoder = training.source.clips[place], training.source.encoder
    variants = []
    for name, chain in sorted(training.augmenter.spec.transforms.items()):
        samples = training.augmenter.apply(
            training.source.samples(place),
            encoder.sample_rate_hz,
            name,
            epoch=epoch,
            clip_key=f"{clip.corpus}/{clip.path}",
        )
        label = f"{training.augmenter.spec.name}: {name} alone, epoch {epoch + 1}"
        variants.append(Variant(label, _steps(chain), samples, extract(encoder, samples)))
    return variants


def _steps(chain: Sequence[Transform]) -> str:
    """`Gain(min_gain_db=-6, max_gain_db=6) -> Telephone`."""
    shown = []
    for step in chain:
        arguments = ", ".join(f"{key}={value}" for key, value in step.arguments.items())
        shown.append(f"{step.class_name}({arguments})" if arguments else step.class_name)
    return " -> ".join(shown)


def _mixed(training: Any, place: int, partner: int, epoch: int, labels: Sequence[str]) -> Variant:
    """The clip mixed with one of another label, as in a batch of these two."""
    from ser_scripts.augment.mixing import mix
    from ser_scripts.training.data import BatchKey

    spec = training.augmenter.spec
    items = [next(item for item, (clip, _) in enumerate(training.items) if clip == one) for one in (place, partner)]
    for batch in range(MAX_BATCHES):
        drawn = training.draw(epoch, batch, 2)
        if drawn is not None and drawn.partners == (1, 0):
            break
    else:
        raise BadInput(f"augmentation '{spec.name}': no batch of {MAX_BATCHES} is mixed; is its probability meant?")
    keys = [BatchKey(epoch, batch, item) for item in items]
    made = training.collate([training[key] for key in keys])
    features = made["inputs"][0, : int(made["lengths"][0])].numpy()
    samples = None
    if spec.batch.level == "waveform":
        samples = mix(spec.batch, [np.array(training.samples(key)) for key in keys], drawn)[0][0]
    shares = ", ".join(
        f"{label} {share:.2f}" for label, share in zip(labels, made["targets"][0].tolist(), strict=True) if share
    )
    other = training.source.clips[partner]
    explanation = f"{spec.batch.kind} of {spec.batch.level} with {other.corpus}/{other.path}: {shares}"
    return Variant(f"{spec.name}: {spec.batch.kind}, epoch {epoch + 1}", explanation, samples, features)


def _with_file(variant: Variant, number: int, folder: Path, heard: Heard) -> Variant:
    import soundfile

    if variant.samples is None:
        return variant
    slug = re.sub(r"[^A-Za-z0-9]+", "-", variant.name).strip("-")
    name = f"{number:02d}-{slug}.wav"
    soundfile.write(folder / name, variant.samples, heard.rate_hz, subtype="FLOAT")  # peaks beyond 1 stay
    return replace(variant, file=name)


def _remove_earlier(folder: Path) -> None:
    """Delete the files that an earlier preview lists, and nothing else."""
    if (folder / RECORD).is_file():
        for name in read_json(folder / RECORD).get("files", []):
            if Path(name).name == name:
                (folder / name).unlink(missing_ok=True)


def _described(variant: Variant, heard: Heard) -> dict[str, Any]:
    features = variant.features.astype(np.float64)
    described: dict[str, Any] = {
        "name": variant.name,
        "explanation": variant.explanation,
        "file": variant.file,
        "features": {
            "shape": list(variant.features.shape),
            "min": float(features.min()),
            "mean": float(features.mean()),
            "max": float(features.max()),
            "std": float(features.std()),
            "encoder_frames": heard.encoder.num_frames(len(features)),
        },
    }
    if variant.samples is not None:
        power = float(np.mean(np.square(variant.samples, dtype=np.float64)))
        described |= {
            "seconds": len(variant.samples) / heard.rate_hz,
            "peak": float(np.max(np.abs(variant.samples))),
            "rms_db": 10 * float(np.log10(power)) if power else None,
        }
    return described


def _text(record: dict[str, Any]) -> list[str]:
    clip, kind = record["clip"], record["features"]
    what = "samples" if kind["kind"] == "samples" else "spectrogram (rows x bins)"
    if kind["stacked_frames"] > 1:
        what += f", {kind['stacked_frames']} frames side by side in a row"
    lines = [
        f"{clip['corpus']}/{clip['path']}: {clip['label']}, on the {clip['side']} side of the first split",
        f"model {record['model']}: {record['encoder']} at {record['sample_rate_hz']} Hz hears {what}, "
        f"{kind['rows_per_second']:g} rows per second",
    ]
    if clip["side"] != "train":
        lines.append("this is no training clip of that split: in training nothing below 'preprocessed' is done to it")
    width = max(len(variant["name"]) for variant in record["variants"])
    lines.append(
        f"{'':{width}}  {'seconds':>7} {'peak':>6} {'RMS dB':>7}  {'features':>13} {'frames':>6} "
        f"{'min':>7} {'mean':>7} {'max':>7} {'std':>7}"
    )
    for variant in record["variants"]:
        level = f"{'':>22}"
        if variant["file"]:
            rms = "silent" if variant["rms_db"] is None else f"{variant['rms_db']:.1f}"
            level = f"{variant['seconds']:7.2f} {variant['peak']:6.3f} {rms:>7}"
        stats = variant["features"]
        shape = " x ".join(map(str, stats["shape"]))
        numbers = " ".join(f"{stats[key]:7.3f}" for key in ("min", "mean", "max", "std"))
        lines.append(f"{variant['name']:{width}}  {level}  {shape:>13} {stats['encoder_frames']:>6} {numbers}")
        lines.append(f"{'':{width}}    {variant['explanation']}")
    return lines


def _draw_pages(variants: Sequence[Variant], heard: Heard, folder: Path, title: str) -> list[str]:
    """Waveform and features of every variant, a page of at most ROWS_PER_PAGE each; returns the file names."""
    longest = max(len(variant.features) / heard.feature_rate_hz for variant in variants)
    peak = max(float(np.max(np.abs(v.samples))) for v in variants if v.samples is not None)
    pictures = [_picture(variant, heard) for variant in variants]
    low, high = np.percentile(pictures[0], 1), np.percentile(pictures[0], 99.9)
    names = []
    for number, start in enumerate(range(0, len(variants), ROWS_PER_PAGE), start=1):
        name = PAGE if number == 1 else PAGE.replace(".png", f"-{number}.png")
        part = slice(start, start + ROWS_PER_PAGE)
        _draw_page(
            variants[part], pictures[part], heard, folder / name, title, limits=(longest, peak, float(low), float(high))
        )
        names.append(name)
    return names


def _picture(variant: Variant, heard: Heard) -> Array:
    """The features, or for samples their spectrogram in dB, as rows over time."""
    if variant.features.ndim == 2:
        return variant.features
    from scipy.signal import stft

    window = round(0.025 * heard.rate_hz)
    padded = np.pad(variant.features, (0, max(0, window - len(variant.features))))
    _, _, spectrum = stft(padded, fs=heard.rate_hz, nperseg=window, noverlap=window - heard.rate_hz // 100)
    picture: Array = (20 * np.log10(np.abs(spectrum) + 1e-6)).T.astype(np.float32)
    return picture


def _draw_page(
    variants: Sequence[Variant],
    pictures: Sequence[Array],
    heard: Heard,
    file: Path,
    title: str,
    *,
    limits: tuple[float, float, float, float],
) -> None:
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ser_eval.figures import BLUE, GREY, STYLE, quiet

    longest, peak, low, high = limits
    with style.context(["default", STYLE]), quiet():
        figure = Figure(figsize=(11.5, 0.7 + 1.35 * len(variants)), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=11)
        axes = figure.subplots(len(variants), 2, squeeze=False, width_ratios=(1, 1.35), sharex=True)
        image = None
        for (wave, spectrum), variant, picture in zip(axes, variants, pictures, strict=True):
            wave.set_title(variant.name, loc="left", fontsize=9, fontweight="bold")
            spectrum.set_title(_short(variant.explanation), loc="left", fontsize=8, color=GREY)
            if variant.samples is None:
                wave.text(0.5, 0.5, "only the features change", transform=wave.transAxes, ha="center", va="center",
                          color=GREY, fontsize=8)  # fmt: skip
                wave.set_yticks([])
            else:
                wave.plot(np.arange(len(variant.samples)) / heard.rate_hz, variant.samples, color=BLUE, linewidth=0.35)
                wave.set_ylim(-1.05 * peak, 1.05 * peak)
            seconds = len(variant.features) / heard.feature_rate_hz
            top = heard.rate_hz / 2000 if heard.on_samples else picture.shape[1]
            image = spectrum.imshow(
                picture.T, origin="lower", aspect="auto", extent=(0, seconds, 0, top), cmap="magma", vmin=low,
                vmax=high, interpolation="nearest",
            )  # fmt: skip
            spectrum.set_facecolor("#eeeeee")
            spectrum.set_ylabel("kHz" if heard.on_samples else "bin", fontsize=8)
            for one in (wave, spectrum):
                one.set_xlim(0, longest)
                one.tick_params(labelsize=7)
        for one in axes[-1]:
            one.set_xlabel("seconds", fontsize=8)
        assert image is not None
        what = "dB (a spectrogram for the eye: the model hears samples)" if heard.on_samples else "value of the feature"
        bar = figure.colorbar(image, ax=axes[:, 1], shrink=min(1.0, 3 / len(variants)), pad=0.01, label=what)
        bar.ax.tick_params(labelsize=7)
        figure.savefig(file, dpi=110, metadata={"Software": None})


def _short(text: str) -> str:
    return text if len(text) <= 110 else text[:107] + "..."
