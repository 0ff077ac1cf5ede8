"""What every layer may use: errors, files, joint layouts, checkpoints, run folders, metrics, pictures.

Imports nothing of ours above it."""
