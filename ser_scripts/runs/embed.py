"""Fill the cache of hidden states ahead of training: `ser embed`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_scripts.audio.store import ClipStore, open_store
from ser_scripts.errors import BadInput
from ser_scripts.features.embeddings import Embeddings, clip_key, folder_of
from ser_scripts.manifest import build_manifest
from ser_scripts.modeling.frozen import FrozenEncoder, frozen_encoder, kept
from ser_scripts.runs.check import corpus_spec
from ser_scripts.runs.conditions import open_conditions, prepare_conditions
from ser_scripts.runs.execute import find_device
from ser_scripts.runs.plan import Run, load_experiment, load_model, make_plan
from ser_scripts.runs.progress import counter
from ser_scripts.runs.train_frozen import clips_of, embed_clips
from ser_scripts.runs.train_run import open_stores
from ser_scripts.settings import Folders, folders
from ser_scripts.specs.base import read_spec_file
from ser_scripts.specs.classical import AnyModel, ClassicalSpec, EmbeddingFeatures
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder


@dataclass(frozen=True)
class _Wish:
    """Clips that one model is to hear."""

    model: ModelSpec
    encoder: FrozenEncoder
    stores: Mapping[str, ClipStore]
    clips: Sequence[tuple[str, str]]
    """(store, path)"""


def embed(
    file: Path,
    *,
    corpora: Sequence[str],
    device: str | None,
    overrides: Sequence[str],
    say: Callable[[str], None],
    allow_remote_code: bool = False,
) -> list[str]:
    """Embed what an experiment with frozen encoders will need, or whole corpora for one model.

    Args:
        file: an experiment JSON: every clip that some run trains, validates or tests on, degraded test clips included;
            or a model JSON
        corpora: with a model JSON: names of corpora, CSVs of clips or folders, heard without preprocessing
        device: where the encoder runs; found when None
        overrides: edits of the spec
        say: takes a line of progress
        allow_remote_code: run the code of an encoder that brings its own

    Returns:
        One line per encoder: clips, how many were there already, bytes, seconds

    Raises:
        BadInput: no model of the file is frozen, or the corpora are missing or too many
    """
    content, where, device = (
        read_spec_file(file, kind="spec"),
        folders(remote_code=allow_remote_code),
        find_device(device),
    )
    if "encoder" in content or "classifier" in content or ("model_path_or_name" in content and "train" not in content):
        model, _ = load_model(file, overrides=[item.removeprefix("model.") for item in overrides])
        if not corpora:
            raise BadInput(f"ser embed {file}: a model JSON says nothing of clips; name them with --corpus")
        wishes = [_of_model(_frozen(model, file), corpora, where, say)]
    else:
        if corpora:
            raise BadInput("ser embed: --corpus goes with a model JSON; an experiment names its corpora itself")
        wishes = _of_experiment(file, where, overrides, say)
    return [line for wish in wishes for line in _fulfil(wish, where, device, say)]


def _frozen(model: AnyModel, file: Path) -> ModelSpec:
    found = _reading(model)
    if found is None:
        raise BadInput(
            f'{file}: nothing to embed: the model is not frozen; cached hidden states go with "encoder": '
            '{"frozen": true}, and with classical "features" of kind "embedding"'
        )
    return found


def _reading(model: AnyModel) -> ModelSpec | None:
    """The model, or one that asks the cache for the same as a classical one; None of models that ask for nothing."""
    if not isinstance(model, ClassicalSpec):
        return model if model.frozen else None
    if not isinstance(model.features, EmbeddingFeatures):
        return None
    from ser_scripts.runs.train_classical import head_spec

    return head_spec(model.features).model_copy(update={"name": model.name})


def _of_model(model: ModelSpec, corpora: Sequence[str], where: Folders, say: Callable[[str], None]) -> _Wish:
    assert isinstance(model.encoder, PretrainedEncoder)
    encoder = frozen_encoder(model.encoder, models=where.models, remote_code=where.remote_code)
    stores, clips = {}, []
    for what in dict.fromkeys(corpora):
        corpus = corpus_spec(what)
        manifest = build_manifest(
            corpus,
            data=where.data,
            locations=where.locations,
            cache=where.cache,
            base=Path(),
            progress=counter(say, f"reading {corpus.name}"),
        )
        stores[what] = open_store(
            manifest, encoder.sample_rate_hz, (), where.cache, counter(say, f"decoding {corpus.name}")
        )
        clips += [(what, path) for path in manifest.clips["path"]]
    return _Wish(model, encoder, stores, clips)


def _of_experiment(file: Path, where: Folders, overrides: Sequence[str], say: Callable[[str], None]) -> list[_Wish]:
    plan = make_plan(load_experiment(file, overrides=overrides), where, progress=say)
    groups: dict[str, list[Run]] = {}
    for run in plan.runs:
        if _reading(run.model) is not None:
            groups.setdefault(run.model.name, []).append(run)
    if not groups:
        raise BadInput(
            f'{file}: nothing to embed: none of its models has a frozen encoder ("encoder": {{"frozen": true}}), or '
            'classical "features" of kind "embedding"'
        )
    prepared = prepare_conditions(plan, where, say)
    wishes = []
    for runs in groups.values():
        model = _reading(runs[0].model)
        assert model is not None
        assert isinstance(model.encoder, PretrainedEncoder)
        encoder = frozen_encoder(model.encoder, models=where.models, remote_code=where.remote_code)
        clips = clips_of(runs)
        stores = open_stores(
            runs[0], (corpus for corpus, _ in clips), plan.manifests, encoder.sample_rate_hz, where, say
        )
        for run in runs:
            for part in open_conditions(run, run.experiment.conditions, prepared, where, encoder.sample_rate_hz, say):
                name = f"{part.corpus}@{part.condition.name}"
                stores[name] = part.store
                clips += [(name, path) for path in part.paths]
        wishes.append(_Wish(model, encoder, stores, list(dict.fromkeys(clips))))
    return wishes


def _fulfil(wish: _Wish, where: Folders, device: str, say: Callable[[str], None]) -> list[str]:
    place = folder_of(where.cache, wish.encoder.identity, kept(wish.model, wish.encoder), device)
    before = Embeddings(place) if place.is_dir() else None
    keys = {clip: clip_key(wish.stores[clip[0]][clip[1]]) for clip in wish.clips}
    distinct = {key: wish.stores[corpus].num_samples(path) for (corpus, path), key in keys.items()}
    missing = [key for key in distinct if before is None or key not in before]
    heard = sum(distinct[key] for key in missing) / wish.encoder.sample_rate_hz
    started = time.monotonic()
    embed_clips(wish.model, wish.encoder, wish.stores, wish.clips, where, device=device, report=say)
    took = time.monotonic() - started
    size = sum(one.stat().st_size for one in place.glob("*.bin"))
    there = len(distinct) - len(missing)
    speed = f" ({heard:.0f} s of sound, {heard / took:.0f} times as fast as it plays)" if missing else ""
    return [
        f"{wish.model.name}: {len(wish.clips)} clips, {len(distinct)} distinct, {there} of them there before; "
        f"{len(missing)} embedded in {took:.1f} s on {device}{speed}",
        f"  {size / 1e6:.1f} MB in {place}",
    ]
