"""Programs around the method: reuse of a checkpoint, pictures, reports, ablations. Each is started as `python -m tools.NAME`."""
