"""The parts of the model, one file each: encoders, head, prompts, decoder, queue, losses; pcm3 combines them."""
