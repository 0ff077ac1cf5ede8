"""From prepared arrays to the views of a training step: clips, random choices, views, masks, mixing. Imports only utils."""
