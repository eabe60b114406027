"""One file per statistical method: tidy frame in, tidy frame out."""
