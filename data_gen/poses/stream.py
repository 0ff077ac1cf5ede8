"""Poses that come frame by frame: what a file tells as a whole, a stream must tell with its first person.

`FrameDoor` takes parsed JSON of any form that `jsons.FrameReader` knows (MediaPipe's landmarks by name or number, OpenPose's
people, lists of x, y, z) and gives persons in Kinect's space, in the layout that an encoder reads. Layout, units and axes are
found from the first frame that shows somebody, said, and kept.
"""

from dataclasses import replace

import numpy as np

from data_gen.poses.door import Reader, find_layout, ordered
from data_gen.poses.jsons import FrameReader
from data_gen.poses.mend import hide
from data_gen.poses.record import Poses, stack
from data_gen.poses.space import find_space
from utils.convert_layout import say_conversion
from utils.skeleton import Layout, get_layout


class FrameDoor:
    """Frames of other people's forms -> (M, V, 3) for one layout. target: of what comes out; layout: of the frames, None to find
    it; say: called with the lines of what was found, once."""

    def __init__(self, target: Layout, layout: str | None = None, say=print):
        self.target, self._wanted, self._say = target, layout, say
        self._frames, self._reader = FrameReader("frame"), None

    def __call__(self, frame) -> np.ndarray:
        """A parsed frame -> (M, V, 3) float32, zeros for what is not seen, (1, V, 3) of zeros without a person. UserError for a
        frame that cannot be read, or whose layout nothing tells."""
        people = self._frames.persons(frame, 0)
        if not people:
            return np.zeros((1, self.target.joints, 3), dtype=np.float32)
        width = people[0].shape[1]
        points, score = stack([people], "frame", self._frames.dimensions or (2 if width == 2 else 3))
        units, up = ("m", "-y") if self._frames.world else (None, None)
        poses = Poses("stream", points, score, joints=self._frames.names, units=units, up=up)
        if self._reader is None:
            self._reader = self._decide(poses)
        return self._reader.placed(_seen(poses, self._reader.layout).points)[:, 0]

    def _decide(self, poses: Poses) -> Reader:
        if self._wanted:
            layout, why = get_layout(self._wanted), "as told"
        else:
            layout, why = find_layout([poses], "frame")
        space = find_space([_seen(poses, layout)], layout)
        lines = [f"layout: {layout.name} ({why})", *space.said]
        if layout != self.target:
            lines.append(say_conversion(layout, self.target))
        for line in lines:
            self._say(f"found  {line}")
        return Reader(layout, self.target, space)


def _seen(poses: Poses, layout: Layout) -> Poses:
    """The layout's joints in its order, NaN for those that were not seen."""
    poses = ordered(poses, layout)
    return replace(poses, points=hide(poses.points, poses.score, 0.0, {}))
