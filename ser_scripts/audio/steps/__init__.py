"""The steps of a preprocessing chain: one file per family, pure functions on (samples,) float32 arrays."""
