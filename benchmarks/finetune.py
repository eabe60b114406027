"""Speed of fine-tuning on real clips, against the ways that others train:

    SER_DATA=... SER_MODELS=... python benchmarks/finetune.py whisper|wav2vec2|compact [--clips 48] [--threads 1]

`whisper` (openai/whisper-tiny.en) and `wav2vec2` (the shape of wav2vec2-base, random weights): training here, against
transformers' example for audio classification: clips decoded in `set_transform`, its feature extractor (which pads
Whisper's clips to 30 s), random batches, the HF Trainer; the same clips, clips per update, trained weights, optimiser
and loss. And against forward and backward passes alone on batches that lie ready, which is what there is to reach.
Of `wav2vec2` the convolutions are frozen on both sides. From our second epoch on what they give is kept; a line of its
own has the ratio of the first epoch, in which nothing is. Ours multiplies with oneDNN, theirs as torch does by itself.
`--clips 535` takes all of EmoDB, with fewer epochs.

`compact` (models/compact.json): an epoch on features in memory, against a pipeline that makes them anew in every epoch,
as the system does that this model comes from: decoding, torchaudio's MFCC, voice activity detection, and the network of
its denoiser (random weights: the time is the same; that it is loaded for every clip is not counted), then the same
training step. Each part has a line of its own.

EmoDB clips, one process, no loader workers. Both sides run in turn, `--rounds` times; the fastest round of each counts,
since other work on the machine only ever adds time. Our first epoch is not counted but stands in a line of its own: it
takes our features into memory. Of theirs, whose epochs are alike, the fastest counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ser_scripts  # noqa: F401  installs the torchaudio guard
from ser_scripts.errors import BadInput
from ser_scripts.runs.train_run import cpu_name

RATE_HZ = 16_000
BATCH = 8
EPOCHS = 20
"""Of a whole training, for the ratio of one: the default of `training.epochs`."""
MANY = 200
"""Clips beyond which two epochs of ours and one of theirs are enough."""
SHAPE: dict[str, Any] = {"model_type": "wav2vec2", "layerdrop": 0.0}
"""transformers' defaults are wav2vec2-base. Neither side drops layers, which would be chance in few batches."""


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
clock_in_use = "wall"


def now() -> float:
    """Seconds on the clock that the user chose."""
    return CLOCKS[clock_in_use]()


def main() -> int:
    """Run one comparison and print its table; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["whisper", "wav2vec2", "compact"])
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="cpu: seconds of this process alone, for a machine that others use at the same time",
    )
    options = parser.parse_args()
    global clock_in_use
    clock_in_use = options.clock
    for variable in ("SER_DATA", *(["SER_MODELS"] if options.what == "whisper" else [])):
        if not os.environ.get(variable):
            sys.exit(f"set {variable}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    from ser_scripts.training.seeding import fix_arithmetic

    fix_arithmetic(options.threads)
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, {options.threads} threads, load {load:.1f}, {clock_in_use} time")
    with tempfile.TemporaryDirectory() as folder:
        clips = Clips(Path(folder), options.clips)
        seconds = sum(clips.seconds)
        print(f"{options.clips} clips of EmoDB, {seconds / options.clips:.2f} s on average; prepared once for all "
              f"trainings in {clips.prepared * 1e3 / options.clips:.1f} ms a clip")  # fmt: skip
        measure = compact if options.what == "compact" else finetune
        return measure(options.what, clips, options.rounds)


class Clips:
    """Every n-th clip of EmoDB: files for the others, a clip store for ours."""

    def __init__(self, folder: Path, count: int) -> None:
        """Find, decode and store them."""
        from ser_scripts.audio.store import open_store
        from ser_scripts.manifest import build_manifest
        from ser_scripts.runs.check import corpus_spec

        self.folder = folder
        manifest = build_manifest(
            corpus_spec("emodb"),
            data=Path(os.environ["SER_DATA"]),
            locations={},
            cache=folder,
            base=Path(),
        )
        began = now()
        self.store = open_store(manifest, RATE_HZ, (), folder, lambda done, total: None)
        self.prepared = (now() - began) * count / len(manifest.clips)
        rows = manifest.clips.iloc[:: max(1, len(manifest.clips) // count)].head(count)
        self.paths = list(rows["path"])
        self.files = [str(Path(manifest.root) / path) for path in self.paths]
        names = sorted(set(manifest.clips["class_id"]))
        self.names = names
        self.labels = [names.index(label) for label in rows["class_id"]]
        self.seconds = [self.store.num_samples(path) / RATE_HZ for path in self.paths]

    def source(self, encoder: Any) -> Any:
        """Our features of the clips."""
        from ser_scripts.training.data import Clip, FeatureSource

        clips = [Clip("emodb", path, label) for path, label in zip(self.paths, self.labels, strict=True)]
        return FeatureSource(clips, {"emodb": self.store}, encoder)


def clock() -> Any:
    """A callback of the HF Trainer that keeps the seconds of every epoch, without evaluation and saving."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.epochs: list[float] = []

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = now()

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.epochs.append(now() - self.began)

    return Clock()


def our_model(what: str, clips: Clips, training: dict[str, Any]) -> Any:
    """One of our models, built as a run builds it."""
    import torch

    from ser_scripts.modeling.encoders import build_encoder
    from ser_scripts.modeling.losses import class_weights
    from ser_scripts.modeling.model import SerModel
    from ser_scripts.specs.model import ModelSpec

    if what == "compact":
        from ser_eval.run_folder import read_json

        content = read_json(Path(__file__).parents[1] / "models/compact.json")
        content.pop("$schema", None)
        content["training"] |= training
    else:
        encoder: dict[str, Any] = {"kind": "random", "config": SHAPE}
        if what == "whisper":
            encoder = {"model_path_or_name": "openai/whisper-tiny.en"}
        head = {"kind": "mlp", "hidden": 256, "activation": "none"}  # transformers' own head
        content = {"name": what, "encoder": encoder, "head": head, "freeze": {"cnn": what == "wav2vec2"}}
        content["training"] = {
            "batch_size": BATCH,
            "learning_rate": 1e-5,
            "threads": torch.get_num_threads(),
        } | training
    spec = ModelSpec.model_validate(content)
    torch.manual_seed(0)
    encoder_module = build_encoder(spec.encoder, models=Path(os.environ.get("SER_MODELS", ".")))
    counts = [max(1, clips.labels.count(index)) for index in range(len(clips.names))]
    return SerModel(spec, clips.names, encoder=encoder_module, class_weights=class_weights(counts))


def ours(what: str, clips: Clips, epochs: int = 2) -> list[float]:
    """Seconds of every epoch of a training here, with all that a run does in its loop."""
    from ser_scripts.training import loop
    from ser_scripts.training.data import FeatureSource, TrainingSet
    from ser_scripts.training.front import FrontCache

    settings = {"epochs": epochs, "track": [], "early_stopping": None, "save_model": "none", "select": "last"}
    model = our_model(what, clips, settings)
    watch = clock()
    source = clips.source(model.encoder)
    training = TrainingSet(source, seed=0, augmenter=None, max_seconds=None, num_labels=len(clips.names))
    validation = FeatureSource(source.clips[:2], source.stores, model.encoder)
    front = FrontCache(model.encoder, clips.folder)
    build = loop.SerTrainer.__init__

    def watched(self: Any, *args: Any, **keys: Any) -> None:
        build(self, *args, **keys)
        self.add_callback(watch)

    loop.SerTrainer.__init__ = watched  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory(dir=clips.folder) as folder:
            loop.train(
                model,
                model.spec.training,
                seed=0,
                labels=clips.names,
                training=training,
                validation=validation,
                folder=Path(folder),
                device="cpu",
                loader_workers=0,
                run_name="benchmark",
                report=lambda text: None,
                front=front,
            )
    finally:
        loop.SerTrainer.__init__ = build  # type: ignore[method-assign]
    return watch.epochs


def bare(what: str, clips: Clips) -> float:
    """Seconds of forward and backward passes over the batches of our second epoch, which lie ready.

    What a frozen front end makes of the clips lies ready, too.
    """
    from ser_scripts.training.data import LengthGroupedBatches, TrainingSet
    from ser_scripts.training.front import FrontCache

    model = our_model(what, clips, {}).train()
    training = TrainingSet(
        clips.source(model.encoder), seed=0, augmenter=None, max_seconds=None, num_labels=len(clips.names)
    )
    order = LengthGroupedBatches(training.lengths(), model.spec.training.batch_size, seed=0)
    order.set_epoch(1)
    batches = [training.collate([training[key] for key in keys]) for keys in order]
    front = FrontCache(model.encoder, None)
    for batch in batches:
        clean = batch.pop("clean").tolist()
        del batch["epoch"], batch["batch"]
        batch["inputs"], batch["lengths"] = front.batch(batch["inputs"], batch["lengths"], clean)
    model(**batches[0])["loss"].backward()
    began = now()
    for batch in batches:
        model.zero_grad()
        model(**batch)["loss"].backward()
    return now() - began


def theirs(what: str, clips: Clips, epochs: int) -> list[float]:
    """Seconds of every epoch of transformers' example for audio classification on these clips."""
    import numpy as np
    import soundfile
    import soxr
    import torch
    from datasets import Dataset
    from transformers import (
        CONFIG_MAPPING,
        AutoFeatureExtractor,
        AutoModelForAudioClassification,
        Trainer,
        TrainingArguments,
        Wav2Vec2FeatureExtractor,
    )
    from transformers.trainer_callback import PrinterCallback

    torch.manual_seed(0)
    if what == "whisper":
        folder = str(Path(os.environ["SER_MODELS"]) / "openai/whisper-tiny.en")
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        model = AutoModelForAudioClassification.from_pretrained(folder, num_labels=len(clips.names))
    else:
        keys = {key: value for key, value in SHAPE.items() if key != "model_type"}
        config = CONFIG_MAPPING["wav2vec2"](**keys, num_labels=len(clips.names))
        extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
        model = AutoModelForAudioClassification.from_config(config)
        model.freeze_feature_encoder()
    name = extractor.model_input_names[0]

    def transform(rows: dict[str, list[Any]]) -> dict[str, Any]:
        heard = []
        for file in rows["path"]:
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
            mono = samples.mean(axis=1)
            heard.append(mono if rate == RATE_HZ else soxr.resample(mono, rate, RATE_HZ).astype(np.float32))
        return {name: extractor(heard, sampling_rate=RATE_HZ)[name], "labels": list(rows["label"])}

    data = Dataset.from_dict({"path": clips.files, "label": clips.labels})
    data.set_transform(transform)
    watch = clock()
    with tempfile.TemporaryDirectory(dir=clips.folder) as out:
        arguments = TrainingArguments(
            output_dir=out,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-5,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(model, arguments, train_dataset=data, processing_class=extractor, callbacks=[watch])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    epochs_seen: list[float] = watch.epochs
    return epochs_seen


def finetune(what: str, clips: Clips, rounds: int) -> int:
    """Our training, transformers' example, and bare passes, in turn."""
    count = len(clips.files)
    many = count > MANY
    first, rest, others, passes = [], [], [], []
    for _ in range(rounds):
        epochs = ours(what, clips, epochs=2 if many else 3)
        first.append(epochs[0])
        rest.append(min(epochs[1:]))
        passes.append(bare(what, clips))
        others.append(min(theirs(what, clips, epochs=1 if many or what == "whisper" else 2)))
    own, other, alone, start = (min(values) / count * 1e3 for values in (rest, others, passes, first))
    made = "features" if what == "whisper" else "features and what the frozen convolutions give"
    print(f"ours            {own:8.1f} ms a clip, from the second epoch on; {made} are kept")
    print(f"our first epoch {start:8.1f} ms a clip, which computes the {made}")
    print(f"HF's example    {other:8.1f} ms a clip")
    print(f"passes alone    {alone:8.1f} ms a clip, over {made} that lie ready")
    print(f"HF's example / our first epoch, in which nothing is kept: {other / start:.2f}")
    print(f"HF's example / ours over {EPOCHS} epochs: {EPOCHS * other / (start + (EPOCHS - 1) * own):.2f}")
    goal = 10 if what == "whisper" else 1.5
    well = _say("HF's example / ours", other / own, goal)
    return 0 if _say("passes alone / ours", alone / own, 0.9) and well else 1


def compact(what: str, clips: Clips, rounds: int) -> int:
    """An epoch on features in memory, and one that makes them anew."""
    count = len(clips.files)
    times: dict[str, list[float]] = {
        name: [] for name in ("first", "epoch", "passes", "decoding and MFCC", "VAD", "denoiser")
    }
    for _ in range(rounds):
        epochs = ours(what, clips, epochs=4)
        times["first"].append(epochs[0])
        times["epoch"].append(min(epochs[1:]))
        times["passes"].append(bare(what, clips))
        times["decoding and MFCC"].append(_seconds(lambda: extract_anew(clips)))
        times["VAD"].append(_seconds(lambda: detect_speech(clips)))
        times["denoiser"].append(_seconds(lambda: denoise(clips)))
    best = {name: min(values) / count * 1e3 for name, values in times.items()}
    anew = best["decoding and MFCC"]
    fetching = min(fetch(clips) for _ in range(rounds)) / count * 1e3
    print(f"our epoch                      {best['epoch']:8.2f} ms a clip (the first: {best['first']:.2f})")
    print(f"  of which passes alone        {best['passes']:8.2f}")
    print(f"  of which features, in memory {fetching:8.3f}")
    print(f"made anew: decoding and MFCC   {anew:8.2f}")
    print(f"           speech detection    {best['VAD']:8.2f}")
    print(f"           denoiser (DNS64)    {best['denoiser']:8.2f}")
    print(f"features made anew / features in memory: {anew / fetching:.0f}")
    epochs = {"decoding and MFCC": anew, "and detection": anew + best["VAD"]}
    for what_else, cost in epochs.items():
        print(f"whole epoch with {what_else} / our epoch: {(best['epoch'] + cost) / best['epoch']:.2f}")
    cost = anew + best["VAD"] + best["denoiser"]
    well = _say("whole epoch with all three / our epoch", (best["epoch"] + cost) / best["epoch"], 10)
    return 0 if _say("passes alone / our epoch", best["passes"] / best["epoch"], 0.9) and well else 1


def _seconds(what: Callable[[], object]) -> float:
    began = now()
    what()
    return now() - began


def extract_anew(clips: Clips) -> None:
    """What the first of these systems does per clip and epoch, the denoiser and the detector apart."""
    import soundfile
    import torch
    import torchaudio

    transform = torchaudio.transforms.MFCC(
        sample_rate=RATE_HZ,
        n_mfcc=40,
        melkwargs={
            "n_fft": 512,
            "hop_length": 160,
            "win_length": 400,
            "f_min": 20.0,
            "f_max": 8000.0,
            "n_mels": 128,
            "window_fn": torch.hamming_window,
        },
    )
    for file in clips.files:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        assert rate == RATE_HZ
        mono = torch.from_numpy(samples).mean(dim=1)
        transform(mono / mono.abs().max().clamp(min=1e-6))


def detect_speech(clips: Clips) -> None:
    """Silero VAD at its default thresholds."""
    import silero_vad
    import torch

    model = silero_vad.load_silero_vad()
    for path in clips.paths:
        silero_vad.get_speech_timestamps(torch.from_numpy(clips.store[path].copy()), model)


def denoise(clips: Clips) -> None:
    """The denoiser's network over every clip, with random weights: its time does not depend on them.

    The system loads it from disk anew for every clip; that is not counted.
    """
    import torch

    from ser_scripts.audio.steps.dns64 import Network

    torch.manual_seed(0)
    network = Network().eval()
    with torch.inference_mode():
        for path in clips.paths:
            network(torch.from_numpy(clips.store[path].copy())[None, None])


def fetch(clips: Clips) -> float:
    """Seconds in which our features of all clips come from memory."""
    source = clips.source(our_model("compact", clips, {}).encoder)
    for index in range(len(clips.paths)):
        source.features(index)
    return min(_seconds(lambda: [source.features(index) for index in range(len(clips.paths))]) for _ in range(5))


def _say(what: str, ratio: float, goal: float) -> bool:
    print(f"{what}: {ratio:.2f} (goal: at least {goal:g}{'' if ratio >= goal else '; MISSED'})")
    return ratio >= goal


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"finetune.py: {error}")
