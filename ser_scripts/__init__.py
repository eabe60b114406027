"""Prepares, trains, schedules and predicts: the room that turns two JSON files into run folders."""

from ser_scripts import torchaudio_guard

torchaudio_guard.install()

__version__ = "0.1.0"
