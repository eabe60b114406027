"""The only decoding in the project, and pure functions on float32 arrays."""
