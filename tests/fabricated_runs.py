"""Run folders made up for tests, as the contract in `ser_eval.run_folder` wants them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_eval.run_folder import CLIP_COLUMNS

CLASSES = ("angry", "happy", "neutral", "sad")


def corpus_clips(
    name: str,
    *,
    actors: Sequence[str] = ("f1", "f2", "f3", "m1", "m2", "m3"),
    classes: Sequence[str] = CLASSES,
    repeats: int = 3,
    without: Sequence[tuple[str, str]] = (),
    speakers_known: bool = True,
) -> pd.DataFrame:
    """Clips of a made-up corpus; `without` lists (actor, class) that the corpus lacks."""
    rows = []
    for actor in actors:
        for class_index, label in enumerate(classes):
            for n in range(repeats):
                if (actor, label) in without:
                    continue
                rows.append(
                    {
                        "corpus": name,
                        "path": f"{actor}/{label}-{n}.wav",
                        "class_id": label,
                        "actor": actor if speakers_known else "",
                        "gender": {"f": "female", "m": "male"}.get(actor[0], "unknown")
                        if speakers_known
                        else "unknown",
                        "group": actor if speakers_known else "",
                        "sentence": f"s{n}",
                        "language": "xx",
                        "duration_seconds": 1.5 + 0.01 * class_index + 0.1 * n,
                        "rms_db": -20.0 - n,
                        "silence_share": 0.1 + 0.02 * n,
                        "bandwidth_hz": 8000.0,
                        "audio_sha256": "",
                    }
                )
    return pd.DataFrame(rows)


def answers(truth: Sequence[str], labels: Sequence[str], skill: float, seed: int) -> list[str]:
    """Right with probability `skill`, else any label."""
    rng = np.random.default_rng(seed)
    return [t if rng.random() < skill and t in labels else labels[rng.integers(len(labels))] for t in truth]


def prediction_table(clips: pd.DataFrame, prediction: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """A prediction table whose probability is .7 on the answer and even on the rest."""
    table = clips[["corpus", "path", "actor", "gender"]].copy()
    table["truth"] = clips["class_id"].to_numpy()
    table["prediction"] = list(prediction)
    table["correct"] = (table["truth"] == table["prediction"]).astype(int)
    for label in sorted(labels):
        table[f"p_{label}"] = np.where(table["prediction"] == label, 0.7, 0.3 / (len(labels) - 1))
    return table.sort_values("path")


def write_run(
    folder: Path,
    *,
    model: str,
    seed: int,
    split: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    train_corpora: Sequence[str],
    labels: Sequence[str],
    fold: str | None = None,
    **changes: Any,
) -> Path:
    """One finished run; `changes` overwrite keys of run.json."""
    augmentation = changes.get("augmentation")
    run = (
        folder
        / (model + (f"+{augmentation}" if augmentation else ""))
        / "+".join(train_corpora)
        / (f"seed-{seed}" + (f"-fold-{fold}" if fold is not None else ""))
    )
    (run / "predictions").mkdir(parents=True)
    columns = ["corpus", "path", "class_id", "actor", "gender", "group", "split"]
    split = split.sort_values(["corpus", "path"])[columns]
    split.to_csv(run / "split.csv", index=False)
    for name, table in tables.items():
        table.to_csv(run / "predictions" / f"{name}.csv", index=False)
    epochs = 3 + seed % 3
    pd.DataFrame(
        {
            "step": [10 * (e + 1) for e in range(epochs)],
            "epoch": [float(e + 1) for e in range(epochs)],
            "train_loss": [1.4 - 0.3 * e for e in range(epochs)],
            "train_accuracy": [0.3 + 0.1 * e for e in range(epochs)],
            "val_loss": [1.4 - 0.2 * e + 0.05 * seed for e in range(epochs)],
            "val_accuracy": [0.3 + 0.05 * e + 0.01 * seed for e in range(epochs)],
            "val_uar": [0.3 + 0.05 * e for e in range(epochs)],
            "learning_rate": 1e-4,
            "seconds": [5.0 * (e + 1) for e in range(epochs)],
        }
    ).to_csv(run / "history.csv", index=False)
    sides = {side: split[split["split"] == side] for side in ("train", "validation", "test", "unused")}
    record = {
        "experiment": folder.name,
        "description": "A made-up experiment.",
        "model": model,
        "augmentation": None,
        "factors": {"architecture": model.split("-")[0]},
        "train_corpora": list(train_corpora),
        "test_corpora": sorted({name.partition("@")[0] for name in tables}),
        "seed": seed,
        "split_seed": seed,
        "train_seed": seed,
        "fold": fold,
        "split_kind": "leave_one_speaker_out" if fold is not None else "speaker_independent",
        "split_sha256": hashlib.sha256(split.to_csv(index=False).encode()).hexdigest(),
        "splits_possible": 9,
        "speaker_dependent": False,
        "speakers_unknown": False,
        "not_comparable": False,
        "split_notes": ["shares achieved: .67, .17, .17"],
        "labels": sorted(labels),
        "n_clips": {side: len(rows) for side, rows in sides.items()},
        "n_speakers": {side: sides[side]["actor"].nunique() for side in ("train", "validation", "test")},
        "spec_digest": "0" * 64,
        "manifest_sha256": {name: hashlib.sha256(name.encode()).hexdigest() for name in sorted(set(split["corpus"]))},
        "dropped": [],
        "left_out": [],
        "code": {"commit": "abc1234", "dirty": False, "version": "0.1.0"},
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "seconds": 60.0,
        "device": "cpu",
        "threads": 2,
        "chance_uar": 1 / len(labels),
        "selected_by": "val_uar",
        "best_step": 10 * (epochs - 1),
        "best_epoch": float(epochs - 1),
        "epochs_run": float(epochs),
        "encoder": {"name": f"lab/{model}", "revision": None, "sha256": "e" * 64},
        **changes,
    }
    (run / "run.json").write_text(json.dumps(record))
    spec = {"experiment": {"preprocess": [{"kind": "loudness", "lufs": -23.0}]}, "model": {"name": model}}
    (run / "spec.json").write_text(json.dumps(spec))
    return run


def write_clips(folder: Path, *corpora: pd.DataFrame) -> None:
    """clips.csv of an experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(corpora).sort_values(["corpus", "path"])[CLIP_COLUMNS].to_csv(folder / "clips.csv", index=False)


def sides(clips: pd.DataFrame, *, test: Sequence[str], validation: Sequence[str]) -> pd.DataFrame:
    """The split that gives these actors to test and validation, and the others to training."""
    side = clips["actor"].map(
        lambda actor: "test" if actor in test else "validation" if actor in validation else "train"
    )
    return clips.assign(split=side)


def make_experiment(
    runs: Path,
    *,
    models: Sequence[str] = ("hubert-a", "wavlm-b"),
    seeds: Sequence[int] = (0, 1, 2),
    skill: Callable[[str], float] = lambda model: 0.8 if model.startswith("hubert") else 0.5,
) -> Path:
    """Two models, three seeds, trained on `home`, tested there and on `away`, which lacks happy and has bored."""
    folder = runs / "made-up"
    home = corpus_clips("home")
    away = corpus_clips("away", actors=("f8", "m9"), classes=("angry", "bored", "neutral", "sad"), repeats=2)
    write_clips(folder, home, away)
    for number, model in enumerate(models):
        for seed in seeds:
            split = sides(home, test=(f"f{seed + 1}", f"m{seed + 1}"), validation=(f"f{(seed + 1) % 3 + 1}",))
            test = split[split["split"] == "test"]
            tables = {
                name: prediction_table(
                    clips, answers(clips["class_id"].tolist(), CLASSES, skill(model), 100 * number + seed), CLASSES
                )
                for name, clips in (("home", test), ("away", away))
            }
            everything = pd.concat([split, away.assign(split="test")])
            write_run(
                folder,
                model=model,
                seed=seed,
                split=everything,
                tables=tables,
                train_corpora=["home"],
                labels=CLASSES,
            )
    return folder
