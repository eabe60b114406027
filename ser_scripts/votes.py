"""Raters' votes as targets: from a corpus' own labels to the classes of a task, and to shares of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ser_eval.run_folder import VOTES_PREFIX
from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.tasks import Task, names_of


def vote_classes(manifest: Manifest, corpus: CorpusSpec, task: Task) -> dict[str, str]:
    """The label that raters voted for -> the class of the task; votes for other labels do not count."""
    classes = {label: task.spec.new_label(label, names_of(corpus)) for label in manifest.votes}
    return {label: new for label, new in classes.items() if new in task.labels}


def vote_targets(
    manifest: Manifest, corpus: CorpusSpec, task: Task, paths: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """Shares of the votes of each clip, over the classes of the task.

    Args:
        manifest: with votes
        corpus: its spec, by whose names the task's map may call it
        task: the classes
        paths: of the clips that are asked for

    Returns:
        path -> K shares in the order of the task's labels, which sum to 1; without the clips that have no vote inside
        the task
    """
    classes = vote_classes(manifest, corpus, task)
    rows = manifest.clips.set_index("path").loc[list(paths)]
    votes = pd.DataFrame(0.0, index=rows.index, columns=list(task.labels))
    for label, new in classes.items():
        votes[new] += rows[VOTES_PREFIX + label].astype(float)
    votes = votes[votes.sum(axis=1) > 0]
    shares = votes.div(votes.sum(axis=1), axis=0)
    return {str(path): tuple(map(float, row)) for path, row in zip(shares.index, shares.to_numpy(), strict=True)}


def check_votes(manifest: Manifest, corpus: CorpusSpec, task: Task, model: str) -> None:
    """Refuse to train on votes that a corpus does not have.

    Raises:
        BadInput: it publishes none, or none for a class of the task
    """
    if vote_classes(manifest, corpus, task):
        return
    what = f"votes for {', '.join(manifest.votes)} only" if manifest.votes else "no votes"
    raise BadInput(
        f"model '{model}': loss.targets is 'votes', but corpus '{corpus.name}' has {what}; the classes are "
        f'{", ".join(task.labels)}. Use "targets": "hard", or a corpus (or label set) with raters\' votes'
    )
