"""The vocabulary, and every corpus' map into it."""

import pytest

from ser_scripts import corpora
from ser_scripts.errors import BadInput
from ser_scripts.labels import VOCABULARY, check_labels


def test_vocabulary_is_lower_case_and_without_repeats() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert all(label.isalpha() and label.islower() for label in VOCABULARY)


@pytest.mark.parametrize("name", corpora.names())
def test_every_corpus_maps_into_the_vocabulary(name: str) -> None:
    check_labels(name, corpora.get(name).LABELS)


def test_labels_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(BadInput, match=r"corpus 'mine': LABELS has 'J' -> 'joy'; valid: angry, happy"):
        check_labels("mine", {"J": "joy", "A": "angry"})


def test_an_empty_map_is_refused() -> None:
    with pytest.raises(BadInput, match="corpus 'mine': LABELS is empty"):
        check_labels("mine", {})
