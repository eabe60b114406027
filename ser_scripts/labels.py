"""The closed vocabulary of emotions that every named corpus maps its own labels into."""

from __future__ import annotations

from collections.abc import Mapping

from ser_scripts.errors import BadInput

VOCABULARY = (
    "angry",
    "happy",
    "sad",
    "neutral",
    "fearful",
    "disgusted",
    "surprised",
    "calm",
    "bored",
    "excited",
    "frustrated",
    "contempt",
    # further states of single corpora
    "amused",
    "anxious",
    "apologetic",
    "assertive",
    "awed",
    "bothered",
    "concentrating",
    "concerned",
    "confused",
    "desirous",
    "drunk",
    "encouraging",
    "enthusiastic",
    "guilty",
    "intense",
    "interested",
    "laughing",
    "sarcastic",
    "sleepy",
    "sympathetic",
    "thinking",
    "tired",
    "unsure",
    "whispering",
    "other",
)
"""`other` is what a corpus itself puts into no emotion of its own list."""


def check_labels(corpus_name: str, labels_map: Mapping[str, str]) -> None:
    """Check a corpus' map from its own labels into the vocabulary.

    Raises:
        BadInput: the map is empty, or values stand outside the vocabulary
    """
    if not labels_map:
        raise BadInput(f"corpus '{corpus_name}': LABELS is empty")
    wrong = [f"{raw!r} -> {label!r}" for raw, label in sorted(labels_map.items()) if label not in VOCABULARY]
    if wrong:
        raise BadInput(f"corpus '{corpus_name}': LABELS has {', '.join(wrong)}; valid: {', '.join(VOCABULARY)}")
