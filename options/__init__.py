"""Names and flags: the data set registry and one parser per program.

Imports neither torch nor anything of ours, so that `--help` is instant."""
