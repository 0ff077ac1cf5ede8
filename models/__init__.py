"""The boxes of the paper's figure, a file each: encoders, head, prompts, decoder, queue, losses; pcm3 composes them."""
