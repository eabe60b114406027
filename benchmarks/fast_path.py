"""How much faster the frozen path is than its plain alternatives: `python benchmarks/fast_path.py embed|heads`.

`embed`: hidden states of real clips, against the plain loop that everybody writes first: WhisperFeatureExtractor pads
each clip to 30 s, WhisperModel's encoder hears one at a time. Same weights, clips, threads and machine; the cache is
cold and in a temporary folder, and its writing is part of the time.

`heads`: one head per seed over cached hidden states (a linear one, and an MLP with dropout), all seeds in one call,
against one Hugging Face Trainer per seed on the same embeddings, clips, batches, epochs and schedule, which evaluates
and saves every epoch to find its best one. A few seeds of the Trainer are measured and counted per seed.

Both need SER_DATA with EmoDB and SER_MODELS with the encoders. Nothing is written but temporary files and the cache.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ser_scripts.audio.store import open_store
from ser_scripts.errors import BadInput
from ser_scripts.features.embeddings import Kept, clip_key, open_embeddings
from ser_scripts.manifest import build_manifest
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.frozen import frozen_encoder
from ser_scripts.runs.check import corpus_spec
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.runs.train_frozen import clips_of, embed_table, jobs_of, targets_of, truths_of
from ser_scripts.runs.train_run import cpu_name, open_stores
from ser_scripts.settings import folders
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder
from ser_scripts.training.heads import HeadJob, train_heads

RATE_HZ = 16_000


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """(result, seconds on the clock, seconds of all cores)."""
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, time.monotonic() - clock, cpu


def show(title: str, threads: int, rows: Sequence[Sequence[str]]) -> None:
    """A table with the machine above it."""
    print(f"{title}\n{cpu_name()}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}, load {load()}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def load() -> str:
    """Processes that wanted a core in the last minute; figures of a busy machine are worth little."""
    return f"{os.getloadavg()[0]:.1f}"


# ---- (i) embedding ----


def plain_loop(extractor: Any, encoder: Any, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Mean of every hidden state over the frames of the clip itself, each clip padded to 30 s, one at a time."""
    out = []
    with torch.inference_mode():
        for clip in clips:
            features = extractor(clip, sampling_rate=RATE_HZ, return_tensors="pt").input_features
            states = encoder(features, output_hidden_states=True).hidden_states
            frames = -(-(len(clip) // 160) // 2)
            out.append(torch.stack([state[0, :frames].mean(0) for state in states]).numpy())
    return np.stack(out)


def bench_embed(models: Sequence[str], count: int, threads: int) -> None:
    """Print how long both ways take."""
    from transformers import WhisperFeatureExtractor, WhisperModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # the file has no decoder, and the encoder does not miss it
    logging.disable_progress_bar()
    where = folders()
    manifest = build_manifest(
        corpus_spec("emodb"), data=where.data, cache=where.cache, locations=where.locations, base=Path()
    )
    store = open_store(manifest, RATE_HZ, (), where.cache)
    paths = list(manifest.clips["path"])[:: max(1, len(manifest.clips) // count)][:count]
    clips = [store[path] for path in paths]
    seconds = sum(map(len, clips)) / RATE_HZ
    rows = [["encoder", "way", "clips", "seconds", "CPU seconds", "clips/s", "ratio", "ratio of CPU seconds"]]
    for name in models:
        spec = PretrainedEncoder(model_path_or_name=name, frozen=True)
        found = frozen_encoder(spec, models=where.models)
        torch.set_num_threads(threads)
        extractor = WhisperFeatureExtractor.from_pretrained(found.folder)
        encoder = WhisperModel.from_pretrained(found.folder, dtype=torch.float32).eval().get_encoder()
        own = build_encoder(spec, models=where.models)
        plain_loop(extractor, encoder, clips[:1])  # warm up
        plain = functools.partial(plain_loop, extractor, encoder, clips)
        _, slow, slow_cpu = timed(plain)
        with tempfile.TemporaryDirectory() as cache:
            ours = functools.partial(
                open_embeddings,
                clips,
                [clip_key(clip) for clip in clips],
                found.identity,
                Kept("pooled"),
                Path(cache),
                functools.partial(copy.copy, own),
                workers=threads,
            )
            _, fast, fast_cpu = timed(ours)
        for way, took, cpu in (("padded to 30 s", slow, slow_cpu), ("ser embed", fast, fast_cpu)):
            ratios = [f"{slow / took:.1f}", f"{slow_cpu / cpu:.1f}"]
            rows.append([name, way, str(len(clips)), f"{took:.1f}", f"{cpu:.1f}", f"{len(clips) / took:.1f}", *ratios])
    show(f"Embedding {len(clips)} clips of EmoDB ({seconds:.0f} s), models in memory", threads, rows)


# ---- (iii) many heads ----


def trainer_per_seed(
    table: NDArray[np.float32], labels: NDArray[np.int64], num_labels: int, job: HeadJob, spec: ModelSpec
) -> float:
    """One Trainer with the same clips, standardisation, head and settings; returns the best validation loss."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    layer = table[:, job.layer]
    x = torch.from_numpy((layer - layer[job.train].mean(0)) / layer[job.train].std(0).clip(1e-6))
    y = torch.from_numpy(labels)
    torch.manual_seed(job.seed)
    head, training = spec.head, spec.training
    body: list[torch.nn.Module] = [torch.nn.Dropout(head.dropout)]
    width = x.shape[1]
    if head.kind == "mlp":
        body += [torch.nn.Linear(width, head.hidden), torch.nn.GELU(), torch.nn.Dropout(head.dropout)]
        width = head.hidden
    body.append(torch.nn.Linear(width, num_labels))

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(*body)
            self.loss = torch.nn.CrossEntropyLoss(torch.from_numpy(job.class_weights), label_smoothing=0.1)

        def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.body(inputs)
            return {"loss": self.loss(logits, labels), "logits": logits}

    sides = [[{"inputs": x[row], "labels": y[row]} for row in rows] for rows in (job.train, job.validation)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=Head(),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=training.epochs,
                per_device_train_batch_size=training.batch_size,
                per_device_eval_batch_size=512,
                learning_rate=job.learning_rate,
                weight_decay=job.weight_decay,
                lr_scheduler_type="cosine",
                warmup_steps=training.warmup,
                max_grad_norm=training.gradient_clip or 0.0,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=1,
                save_only_model=True,
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                greater_is_better=False,
                seed=job.seed,
                use_cpu=True,
                dataloader_num_workers=0,
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
            ),
            train_dataset=sides[0],
            eval_dataset=sides[1],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return float(trainer.state.best_metric or 0.0)


def prepare(kind: str, seeds: int, layer: int) -> tuple[ModelSpec, Any, Any, int, list[HeadJob]]:
    """Model spec, table, labels, K and one training per seed: speaker-independent splits of EmoDB."""
    where = folders()
    model = {
        "name": "bench",
        "encoder": {"model_path_or_name": "openai/whisper-base", "frozen": True},
        "layers": {"use": layer},
        "head": {"kind": kind, "dropout": 0.3 if kind == "mlp" else 0.0, "relu": False},
        "loss": {"label_smoothing": 0.1},
        "training": {
            "epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 0.1, "scheduler": "cosine",
            "select": "val_loss", "early_stopping": None,
        },
    }  # fmt: skip
    experiment = {
        "name": "bench", "train": ["emodb"], "models": ["bench.json"],
        "split": {"kind": "speaker_independent"}, "seeds": {"low": 0, "high": seeds - 1},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("bench.json", model), ("experiment.json", experiment)):
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        plan = make_plan(load_experiment(Path(folder) / "experiment.json"), where, progress=lambda text: None)
    runs = list(plan.runs)
    spec = runs[0].model
    assert isinstance(spec, ModelSpec)
    assert isinstance(spec.encoder, PretrainedEncoder)
    encoder = frozen_encoder(spec.encoder, models=where.models)
    clips = clips_of(runs)
    stores = open_stores(runs[0], (corpus for corpus, _ in clips), plan.manifests, encoder.sample_rate_hz, where, print)
    table = embed_table(spec, encoder, stores, clips, where, device="cpu", report=print)
    truths = truths_of(runs, table)
    targets = targets_of(truths, table, {}, len(runs[0].labels))
    jobs = [job for run in runs for job in jobs_of(run, table, targets)]
    return spec, np.asarray(table.values), truths, len(runs[0].labels), jobs


def compare_heads(kind: str, seeds: int, measured: int, layer: int, threads: int) -> list[list[str]]:
    """Two rows of the table."""
    spec, table, truths, num_labels, jobs = prepare(kind, seeds, layer)

    def ours(jobs: Sequence[HeadJob]) -> Any:
        return train_heads(
            table,
            truths,
            num_labels,
            jobs,
            head=spec.head,
            loss=spec.loss,
            training=spec.training,
            workers=threads,
        )

    def theirs(jobs: Sequence[HeadJob]) -> list[float]:
        torch.set_num_threads(threads)
        return [trainer_per_seed(table, truths, num_labels, job, spec) for job in jobs]

    ours(jobs[:2])  # warm up
    theirs(jobs[:1])
    _, fast, fast_cpu = timed(lambda: ours(jobs))
    _, slow, slow_cpu = timed(lambda: theirs(jobs[:measured]))
    rows = []
    for way, number, took, cpu in (
        ("Trainer per seed", measured, slow, slow_cpu),
        ("ser train", len(jobs), fast, fast_cpu),
    ):
        ratios = [f"{slow / measured / (took / number):.0f}", f"{slow_cpu / measured / (cpu / number):.0f}"]
        rows.append([kind, way, str(number), f"{took:.1f}", f"{cpu:.1f}", f"{took / number:.3f}", *ratios])
    return rows


def bench_heads(seeds: int, measured: int, layer: int, threads: int) -> None:
    """Print how long both ways take per seed."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    rows = [["head", "way", "seeds", "seconds", "CPU seconds", "seconds/seed", "ratio", "ratio of CPU seconds"]]
    for kind in ("linear", "mlp"):
        rows += compare_heads(kind, seeds, measured, layer, threads)
    show(
        f"Heads on EmoDB (535 clips), whisper-base, hidden state {layer}, 30 epochs; the Trainer measured on "
        f"{measured} seeds and counted per seed",
        threads,
        rows,
    )


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["embed", "heads"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clips", type=int, default=48, help="embed: clips, spread over EmoDB")
    parser.add_argument("--models", nargs="+", default=["openai/whisper-base", "openai/whisper-tiny.en"])
    parser.add_argument("--seeds", type=int, default=100, help="heads: seeds of ser train")
    parser.add_argument("--measured", type=int, default=3, help="heads: seeds of the Trainer")
    parser.add_argument("--layer", type=int, default=3)
    options = parser.parse_args()
    if options.what == "embed":
        bench_embed(options.models, options.clips, options.threads)
    else:
        bench_heads(options.seeds, options.measured, options.layer, options.threads)


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"fast_path.py: {error}")
