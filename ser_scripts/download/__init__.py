"""Getting a corpus from its publisher: addresses and checksums, resumable downloads, safe unpacking.

`sources.py` reads `corpora/data/downloads.json` and says how to get a corpus, `fetch.py` gets one file, `extract.py`
unpacks one archive, `lfs.py` replaces Git LFS pointers by what they stand for, `corpus.py` puts them together.
"""

from ser_scripts.download.sources import how_to_get

__all__ = ["how_to_get"]
