"""Run folders -> metrics, intervals, confusion matrices, report. Imports nothing else of this repository; no torch."""
