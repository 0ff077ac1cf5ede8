"""Used by all layers: errors, files, joint layouts, checkpoints, run folders, metrics, pictures.

Imports none of the project's other packages."""
