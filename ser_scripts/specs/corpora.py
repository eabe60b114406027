"""Where clips and their labels come from."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ser_scripts.labels import VOCABULARY
from ser_scripts.specs.base import Spec, nearest
from ser_scripts.specs.model import NAME_PATTERN

ClipColumn = Literal["actor", "gender", "group", "sentence", "language", "intensity", "style", "partition"]
PATTERN_GROUPS = ("actor", "gender", "group", "sentence", "label")
"""Names that the groups of a `speaker_pattern` may have."""


class CorpusBase(Spec):
    """What every kind of corpus has."""

    name: str = Field(pattern=NAME_PATTERN)
    """How the corpus is called in splits, run folders and tables. With the actor it tells who a speaker is: give the
    same recordings the same name everywhere."""
    only: dict[ClipColumn, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Take part only clips whose column has one of these values; the others are counted as set aside."""
    twin: str | None = None
    """Read the clips of this folder instead of those of the folder beside it, such as `wav_telephone` beside `wav`.
    Labels, speakers and splits stay the same."""


class NamedCorpus(CorpusBase):
    """A corpus that the project knows (`ser corpora`), at `root`, as data/locations.json says, or SER_DATA/<name>."""

    kind: Literal["named"] = "named"
    name: str = Field(pattern=NAME_PATTERN)
    """The corpus; or any name that tells two uses of it apart, with the corpus under `corpus`."""
    corpus: str | None = Field(default=None, pattern=NAME_PATTERN)
    """The corpus, when `name` is another name: `{"name": "esd-zh", "corpus": "esd", "only": {"language": ["zh"]}}`."""
    root: str | None = None
    """Folder of the corpus when it is neither SER_DATA/<corpus> nor named in data/locations.json."""
    labels: str | None = None
    """One of the corpus' label sets (`ser corpora NAME` lists them), its first when absent."""

    @property
    def reader(self) -> str:
        """Name of the corpus module that reads it."""
        return self.corpus or self.name


class OwnCorpus(CorpusBase):
    """What the kinds for anybody's clips have."""

    labels: dict[str, str | None] | None = Field(default=None, min_length=1)
    """A map from every label of these clips to the project's vocabulary, or to null: clips so labelled are set aside.
    A label outside the map is an error. Without it labels stay as they are written."""

    @field_validator("labels")
    @classmethod
    def _in_vocabulary(cls, labels: dict[str, str | None] | None) -> dict[str, str | None] | None:
        for raw, label in (labels or {}).items():
            if label is not None and label not in VOCABULARY:
                raise ValueError(f"{raw!r}: {label!r} is not in the vocabulary{nearest(label, VOCABULARY)}")
        if labels and not any(labels.values()):
            raise ValueError("every label is null, so that no clip is left")
        return labels


def _speaker_pattern(pattern: str | None) -> str | None:
    if pattern is None:
        return None
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    if "actor" not in groups:
        raise ValueError(rf"{pattern!r} has no group named actor; expected e.g. '(?P<actor>spk\d+)_'")
    if strange := sorted(set(groups) - set(PATTERN_GROUPS)):
        raise ValueError(f"{pattern!r}: group {strange[0]!r} is not known{nearest(strange[0], PATTERN_GROUPS)}")
    return pattern


class CsvCorpus(OwnCorpus):
    """Anybody's clips, listed in a CSV: path, class_id, actor, gender; or path and label without speakers."""

    kind: Literal["csv"]
    path: str
    """The CSV file; relative clip paths resolve against its folder, then against the working directory."""
    rating_scale: tuple[float, float] | None = None
    """Lowest and highest value that the columns valence, arousal and dominance can have, e.g. `[1, 5]`: the ends of the
    raters' scale, not of the ratings that occur. Without it these columns are not read."""

    @field_validator("rating_scale")
    @classmethod
    def _low_to_high(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not scale[0] < scale[1]:
            raise ValueError(f"the lowest value comes first; {list(scale)} is not a scale")
        return scale


class AudioFolderCorpus(OwnCorpus):
    """Clips in one folder per class: the name of the folder that holds a clip is its label."""

    kind: Literal["audiofolder"]
    path: str
    """The folder. A first level called train, validation or test becomes the clips' `partition`."""
    speaker_pattern: str | None = None
    r"""Regular expression with a group `actor`, searched in each clip's path without suffix, e.g.
    `/(?P<actor>spk\d+)_`; optional further groups: gender, group, sentence, and label (instead of the folder's name).
    Without it speakers are unknown."""

    @field_validator("speaker_pattern")
    @classmethod
    def _pattern(cls, pattern: str | None) -> str | None:
        return _speaker_pattern(pattern)


class HuggingFaceCorpus(OwnCorpus):
    """An audio data set in a layout of the `datasets` library, on disk or on the hub; its scripts are never run."""

    kind: Literal["huggingface"]
    path: str
    """A folder: of `save_to_disk`, of parquet files, or with metadata.csv beside the clips. Or a data set's name on the
    hub (`owner/name`), whose files are downloaded once."""
    revision: str | None = None
    """Branch, tag or commit on the hub; name a commit, since branches move. Not for a folder."""
    subset: str | None = None
    """The folder inside the data set to read, where it has several configurations."""
    split: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Splits to read, all when absent; a clip's split becomes its `partition`."""
    audio_column: str = "audio"
    label_column: str = "label"
    speaker_column: str | None = None
    """Without it speakers are unknown."""
    gender_column: str | None = None
    sentence_column: str | None = None

    @field_validator("split", mode="before")
    @classmethod
    def _one_split(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class EmoBoxCorpus(OwnCorpus):
    """A corpus as EmoBox lists it (data/<corpus>/<corpus>.jsonl and label_map.json); its folds are preset splits."""

    kind: Literal["emobox"]
    path: str
    """EmoBox' folder of the corpus, e.g. `EmoBox/data/emodb`."""
    root: str
    """Where the audio lies: the folder that holds `downloads`, or the corpus' folder itself."""
    speaker_pattern: str | None = None
    r"""Regular expression with a group `actor`, searched in each clip's path without suffix, since EmoBox names no
    speakers; optional further groups: gender, group, sentence. Without it speakers are unknown."""

    @field_validator("speaker_pattern")
    @classmethod
    def _pattern(cls, pattern: str | None) -> str | None:
        return _speaker_pattern(pattern)


CorpusSpec = Annotated[
    NamedCorpus | CsvCorpus | AudioFolderCorpus | HuggingFaceCorpus | EmoBoxCorpus, Field(discriminator="kind")
]
