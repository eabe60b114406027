"""Durations as people read them."""


def duration(seconds: float) -> str:
    """`1:05` (minutes:seconds) or `2:03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
