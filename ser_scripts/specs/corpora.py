"""Where clips and their labels come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN


class NamedCorpus(Spec):
    """A corpus that the project knows (`ser corpora`), under SER_DATA/<name> or at `root`."""

    kind: Literal["named"] = "named"
    name: str = Field(pattern=NAME_PATTERN)
    root: str | None = None
    """Folder of the corpus when it is not SER_DATA/<name>."""


class CsvCorpus(Spec):
    """Anybody's clips, listed in a CSV: path, class_id, actor, gender; or path and label without speakers."""

    kind: Literal["csv"]
    name: str = Field(pattern=NAME_PATTERN)
    path: str
    """The CSV file; relative clip paths resolve against its folder, then against the working directory."""


CorpusSpec = Annotated[NamedCorpus | CsvCorpus, Field(discriminator="kind")]
