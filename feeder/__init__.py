"""From prepared arrays to batches of views: clips, random choices, rendering, masks, mixing. Imports only utils."""
