"""Data preparation: raw recordings and other people's files -> prepared folders (see utils.arrays)."""
