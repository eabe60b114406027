"""Run folders -> metrics, intervals, confusion matrices, report. Imports nothing else of this repository, and no torch."""
