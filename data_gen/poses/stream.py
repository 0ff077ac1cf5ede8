"""Poses that come frame by frame: what a file tells as a whole, a stream must tell with its first person.

`FrameDoor` takes parsed JSON of any form that `jsons.FrameReader` knows (MediaPipe's landmarks by name or number, OpenPose's
people, lists of x, y, z) and gives persons in Kinect's space, in the layout that an encoder reads. Layout, units and axes are
found from the first frame that shows somebody, said, and kept.
"""

from dataclasses import replace

import numpy as np

from data_gen.poses.door import find_layout, ordered
from data_gen.poses.jsons import FrameReader
from data_gen.poses.mend import closed, hide
from data_gen.poses.record import Poses, stack
from data_gen.poses.space import find_space
from utils.convert_layout import convert, say_conversion
from utils.skeleton import Layout, get_layout


class FrameDoor:
    """Frames of other people's forms -> (M, V, 3) for one layout. target: of what comes out; layout: of the frames, None to find
    it; say: called with the lines of what was found, once."""

    def __init__(self, target: Layout, layout: str | None = None, say=print):
        self.target, self._say = target, say
        self._wanted = layout
        self._reader = FrameReader("frame")
        self._layout: Layout | None = None
        self._space = None

    def __call__(self, frame) -> np.ndarray:
        """A parsed frame -> (M, V, 3) float32, zeros for what is not seen, (1, V, 3) of zeros without a person. UserError for a
        frame that cannot be read, or whose layout nothing tells."""
        people = self._reader.persons(frame, 0)
        if not people:
            return np.zeros((1, self.target.joints, 3), dtype=np.float32)
        width = people[0].shape[1]
        dimensions = self._reader.dimensions or (2 if width == 2 else 3)
        points, score = stack([people], "frame", dimensions)
        units, up = ("m", "-y") if self._reader.world else (None, None)
        poses = Poses("stream", points, score, joints=self._reader.names, units=units, up=up)
        if self._layout is None:
            self._decide(poses)
        poses = ordered(poses, self._layout)
        seen = hide(poses.points, poses.score, 0.0, {})
        out = convert(self._space.of(seen), self._layout, self.target, axis=2)
        out = closed(out)[0]  # (M, V, C)
        if out.shape[2] == 2:
            out = np.concatenate([out, np.zeros_like(out[..., :1])], axis=2)
        return out.astype(np.float32)

    def _decide(self, poses: Poses) -> None:
        if self._wanted:
            self._layout, why = get_layout(self._wanted), "as told"
        else:
            self._layout, why = find_layout([poses], "frame")
        first = ordered(poses, self._layout)
        first = replace(first, points=hide(first.points, first.score, 0.0, {}))
        self._space = find_space([first], self._layout)
        lines = [f"layout: {self._layout.name} ({why})", *self._space.said]
        if self._layout != self.target:
            lines.append(say_conversion(self._layout, self.target))
        for line in lines:
            self._say(f"found  {line}")
