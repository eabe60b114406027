"""Encoders, pooling, heads, losses."""
