"""Measurements: every program here prints one JSON line and compares with a plain twin in the same run, interleaved."""
