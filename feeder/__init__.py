"""From prepared arrays to the views of a training step: clips, draws, views, masks, mixing. Imports only utils."""
