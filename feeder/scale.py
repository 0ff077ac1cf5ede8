"""How long the trunk of a person is, to divide clips by: small and tall people, and metres and other units, become alike.

The length is that of the way through the places of `Layout.trunk`, of person 1; all persons of a clip are divided by it, so that
their distances keep their meaning. A clip has the median over its frames. A stream, and a video that goes through in one
pass, cannot know what comes: they have the length in the first frame that shows person 1.
"""

from torch import Tensor

from utils.skeleton import Layout, at

SHORTEST = 1e-4  # a trunk below this was not seen, and its frame does not count


def trunk_lengths(frames: Tensor, layout: Layout) -> Tensor:
    """Of frames (..., V, C, M) the length of person 1's trunk, (...)."""
    places = [at(frames[..., 0], place, -2) for place in layout.trunk]
    return sum((a - b).norm(dim=-1) for a, b in zip(places, places[1:], strict=False))


def median_length(lengths: Tensor) -> float:
    """Of the lengths of a clip's frames (T,); 1 where none was seen."""
    seen = lengths[lengths > SHORTEST]
    return float(seen.median()) if len(seen) else 1.0


def first_length(lengths: Tensor) -> float | None:
    """Of the first frame (T,) that shows the trunk; None where none does."""
    seen = lengths[lengths > SHORTEST]
    return float(seen[0]) if len(seen) else None
