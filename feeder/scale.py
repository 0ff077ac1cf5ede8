"""The trunk length of a person, by which clips are divided to remove body size and units.

It is the length of the path through the points of `Layout.trunk`, of person 1; all persons of a clip are divided by it, so
that their distances stay in proportion. For a clip it is the median over its frames. A live stream, or a video that is
encoded in one pass, cannot know later frames: there it is the length in the first frame that shows person 1.
"""

from torch import Tensor

from utils.skeleton import Layout, at

SHORTEST = 1e-4  # shorter trunks count as not detected, and their frames are ignored


def trunk_lengths(frames: Tensor, layout: Layout) -> Tensor:
    """The trunk length (...) of person 1 in frames (..., V, C, M), in their units."""
    points = [at(frames[..., 0], point, -2) for point in layout.trunk]
    return sum((a - b).norm(dim=-1) for a, b in zip(points, points[1:], strict=False))


def median_length(lengths: Tensor) -> float:
    """The median of the trunk lengths (T,) of a clip's frames; 1 if the trunk is not detected in any."""
    detected = lengths[lengths > SHORTEST]
    return float(detected.median()) if len(detected) else 1.0


def first_length(lengths: Tensor) -> float | None:
    """The first of the trunk lengths (T,) in which the trunk is detected; None if there is none."""
    detected = lengths[lengths > SHORTEST]
    return float(detected[0]) if len(detected) else None
