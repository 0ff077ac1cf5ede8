"""The flags of the programs, one module each, and the registry of data sets.

Imports neither torch nor NumPy, and of this project only utils.names, so that `--help` is instant."""
