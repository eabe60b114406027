"""From raters' votes to targets: the task's map counts for votes as it does for labels."""

from pathlib import Path

import pandas as pd
import pytest

from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest
from ser_scripts.specs.corpora import NamedCorpus
from ser_scripts.specs.task import TaskSpec
from ser_scripts.tasks import Task
from ser_scripts.votes import check_votes, vote_classes, vote_targets

VOTES = {
    "votes_angry": [3.0, 0.0, 0.0, 1.0],
    "votes_disgusted": [1.0, 0.0, 0.0, 1.0],
    "votes_other": [6.0, 5.0, 0.0, 0.0],
    "votes_sad": [0.0, 0.0, 4.0, 6.0],
}
CORPUS = NamedCorpus(kind="named", name="cremad")


def manifest(votes: dict[str, list[float]]) -> Manifest:
    clips = pd.DataFrame({"path": ["a", "b", "c", "d"], "class_id": ["angry", "angry", "sad", "sad"], **votes})
    empty = pd.DataFrame({"path": [], "reason": []})
    return Manifest("cremad", Path(), clips, empty, True, empty)


def task(**keys: object) -> Task:
    return Task(TaskSpec.model_validate(keys), ("angry", "sad"), ())


def test_shares_count_votes_inside_the_task_only() -> None:
    targets = vote_targets(manifest(VOTES), CORPUS, task(), ["d", "b", "a"])
    assert targets == {"d": (pytest.approx(1 / 7), pytest.approx(6 / 7)), "a": (1.0, 0.0)}, "b has votes for other only"


@pytest.mark.parametrize("source", ["disgusted", "cremad/disgusted"])
def test_votes_are_merged_as_labels_are(source: str) -> None:
    merged = task(merge={"angry": ["angry", source]})
    assert vote_classes(manifest(VOTES), CORPUS, merged) == {"angry": "angry", "disgusted": "angry", "sad": "sad"}
    assert vote_targets(manifest(VOTES), CORPUS, merged, ["d"]) == {"d": (0.25, 0.75)}


@pytest.mark.parametrize(
    ("votes", "message"), [({}, "has no votes"), ({"votes_other": [1.0] * 4}, "has votes for other only")]
)
def test_corpora_without_votes_are_refused(votes: dict[str, list[float]], message: str) -> None:
    with pytest.raises(BadInput, match=f"model 'm': loss.targets is 'votes', but corpus 'cremad' {message}"):
        check_votes(manifest(votes), CORPUS, task(), "m")
    check_votes(manifest(VOTES), CORPUS, task(), "m")
