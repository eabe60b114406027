"""Results -> statistics. Imports `ser_eval` only, and no torch."""
