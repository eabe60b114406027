"""Where clips and their labels come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN

ClipColumn = Literal["actor", "gender", "group", "sentence", "language", "intensity", "style", "partition"]


class NamedCorpus(Spec):
    """A corpus that the project knows (`ser corpora`), under SER_DATA/<name> or at `root`."""

    kind: Literal["named"] = "named"
    name: str = Field(pattern=NAME_PATTERN)
    """The corpus; or any name that tells two uses of it apart, with the corpus under `corpus`."""
    corpus: str | None = Field(default=None, pattern=NAME_PATTERN)
    """The corpus, when `name` is another name: `{"name": "esd-zh", "corpus": "esd", "only": {"language": ["zh"]}}`."""
    root: str | None = None
    """Folder of the corpus when it is neither SER_DATA/<corpus> nor named in data/locations.json."""
    labels: str | None = None
    """One of the corpus' label sets (`ser corpora NAME` lists them), its first when absent."""
    only: dict[ClipColumn, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Take part only clips whose column has one of these values; the others are counted as set aside."""

    @property
    def reader(self) -> str:
        """Name of the corpus module that reads it."""
        return self.corpus or self.name


class CsvCorpus(Spec):
    """Anybody's clips, listed in a CSV: path, class_id, actor, gender; or path and label without speakers."""

    kind: Literal["csv"]
    name: str = Field(pattern=NAME_PATTERN)
    path: str
    """The CSV file; relative clip paths resolve against its folder, then against the working directory."""


CorpusSpec = Annotated[NamedCorpus | CsvCorpus, Field(discriminator="kind")]
