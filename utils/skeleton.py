"""Joint layouts: the only module of the project with joint numbers.

A `Layout` describes the skeleton of a sensor or pose estimator: joint names, parents (for the bone stream and for drawing),
the five body parts that masks hide and mixing swaps, and the joints that define normalisation. `LAYOUTS` has a row for each
known layout; a data set names its layout, which gives V. The number of dimensions does not belong to the layout: the same
joints can be two- or three-dimensional.

Joint numbers are 0-based. Kinect v2's parents are the released pairs of the bone stream; its tree is rooted at the joint
between the shoulders (20), whose bone is zero.

Names are lower-case words. A name is the same point of the body in every layout, and the two of a pair differ only in `left`
and `right`: `utils/convert_layout.py` and the mirrored pairs depend on this.

A `Place` is a joint, or several joints for their mean: COCO has no joint between the hips, so the mean of both hips is used.
`at` computes a place from coordinates.
"""

from dataclasses import dataclass

from utils.errors import UserError

Place = int | tuple[int, ...]


def mirrored(name: str) -> str:
    """A joint's name with left and right exchanged; the name itself if it has neither."""
    sides = {"left": "right", "right": "left"}
    return " ".join(sides.get(word, word) for word in name.split(" "))


@dataclass(frozen=True)
class Layout:
    """One sensor's or estimator's skeleton.

    names: V joint names; parents: V joint numbers (the root is its own parent); parts: five tuples of joints that together
    contain every joint once, in the order trunk, arm, arm, leg, leg; and for normalisation centre: the place moved to the
    origin; up: (from, to), rotated to +z; across: (from, to), rotated to +x.
    """

    name: str
    names: tuple[str, ...]
    parents: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    centre: Place
    up: tuple[Place, Place]
    across: tuple[Place, Place]

    @property
    def joints(self) -> int:
        return len(self.names)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint the one on the other side of the body, by name; for one in the middle itself."""
        other = map(mirrored, self.names)
        return tuple(self.names.index(name) if name in self.names else i for i, name in enumerate(other))

    def path_to_root(self, joint: int) -> tuple[int, ...]:
        """The joint, its parent, and so on to the root of the tree."""
        way = [joint]
        while self.parents[way[-1]] != way[-1]:
            way.append(self.parents[way[-1]])
        return tuple(way)

    @property
    def trunk(self) -> tuple[Place, ...]:
        """The places along the trunk: from an end of `up` that is a joint but not the root (the lower end first) to the root of
        the tree; without such an end the two ends of `up`."""
        ways = (
            [self.path_to_root(end) for end in self.up if isinstance(end, int)] if isinstance(self.up[0], int) else []
        )
        return next((way for way in ways if len(way) > 1), self.up)

    def __post_init__(self):
        if len(set(self.names)) != self.joints:
            raise ValueError(f"layout {self.name}: a joint's name appears twice")
        if len(self.parents) != self.joints:
            raise ValueError(f"layout {self.name}: {len(self.parents)} parents for {self.joints} joints")
        if sorted(j for part in self.parts for j in part) != list(range(self.joints)):
            raise ValueError(f"layout {self.name}: the body parts must name each of the {self.joints} joints once")


def at(x, place: Place, axis: int):
    """Coordinates of a place: x, an array or a tensor whose `axis` counts joints, without that axis. One joint's are taken as
    they are, of several their mean."""
    index = (slice(None),) * (axis % x.ndim)
    return x[(*index, place)] if isinstance(place, int) else x[(*index, list(place))].mean(axis % x.ndim)


KINECT_V2 = Layout(
    name="kinect_v2_25",
    names=(
        "base of spine", "middle of spine", "neck", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
        "between shoulders", "tip of left hand", "left thumb", "tip of right hand", "right thumb",
    ),
    parents=(1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11),
    parts=((0, 1, 2, 3, 20), (8, 9, 10, 11, 23, 24), (4, 5, 6, 7, 21, 22), (16, 17, 18, 19), (12, 13, 14, 15)),
    centre=1,
    up=(0, 1),
    across=(4, 8),
)  # fmt: skip

KINECT_V1 = Layout(
    name="kinect_v1_20",
    names=(
        "base of spine", "middle of spine", "between shoulders", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
    ),
    parents=(1, 2, 2, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
    parts=((0, 1, 2, 3), (8, 9, 10, 11), (4, 5, 6, 7), (16, 17, 18, 19), (12, 13, 14, 15)),
    centre=1,
    up=(0, 1),
    across=(4, 8),
)  # fmt: skip

SBU = Layout(
    name="sbu_15",
    names=(
        "head", "between shoulders", "middle of spine",
        "left shoulder", "left elbow", "left hand", "right shoulder", "right elbow", "right hand",
        "left hip", "left knee", "left foot", "right hip", "right knee", "right foot",
    ),
    parents=(1, 1, 1, 1, 3, 4, 1, 6, 7, 2, 9, 10, 2, 12, 13),
    parts=((0, 1, 2), (6, 7, 8), (3, 4, 5), (12, 13, 14), (9, 10, 11)),
    centre=2,
    up=(2, 1),
    across=(3, 6),
)  # fmt: skip

SMPL_24 = Layout(
    name="smpl_24",
    names=(
        "base of spine", "left hip", "right hip", "lower spine", "left knee", "right knee", "middle of spine",
        "left ankle", "right ankle", "upper spine", "left foot", "right foot", "neck", "left collar", "right collar",
        "head", "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
        "left hand", "right hand",
    ),
    parents=(3, 0, 0, 6, 1, 2, 9, 4, 5, 9, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    parts=((0, 3, 6, 9, 12, 15), (14, 17, 19, 21, 23), (13, 16, 18, 20, 22), (2, 5, 8, 11), (1, 4, 7, 10)),
    centre=6,
    up=(0, 6),
    across=(16, 17),
)  # fmt: skip

SMPL_22 = Layout(
    name="smpl_22",  # smpl_24 without the hands
    names=SMPL_24.names[:22],
    parents=SMPL_24.parents[:22],
    parts=tuple(tuple(joint for joint in part if joint < 22) for part in SMPL_24.parts),
    centre=SMPL_24.centre,
    up=SMPL_24.up,
    across=SMPL_24.across,
)

MEDIAPIPE = Layout(
    name="mediapipe_33",
    names=(
        "nose", "left eye inner", "left eye", "left eye outer", "right eye inner", "right eye", "right eye outer",
        "left ear", "right ear", "mouth left", "mouth right", "left shoulder", "right shoulder", "left elbow", "right elbow",
        "left wrist", "right wrist", "left pinky", "right pinky", "left index", "right index", "left thumb", "right thumb",
        "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle", "left heel", "right heel",
        "left foot index", "right foot index",
    ),
    parents=(0, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26, 27, 28,
             27, 28),
    parts=(tuple(range(11)), (12, 14, 16, 18, 20, 22), (11, 13, 15, 17, 19, 21), (24, 26, 28, 30, 32), (23, 25, 27, 29, 31)),
    centre=(11, 12, 23, 24),
    up=((23, 24), (11, 12)),
    across=(11, 12),
)  # fmt: skip

_COCO_NAMES = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow", "right elbow",
    "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip

COCO = Layout(
    name="coco_17",
    names=_COCO_NAMES,
    parents=(0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    parts=((0, 1, 2, 3, 4), (6, 8, 10), (5, 7, 9), (12, 14, 16), (11, 13, 15)),
    centre=(5, 6, 11, 12),
    up=((11, 12), (5, 6)),
    across=(5, 6),
)

HALPE = Layout(
    name="halpe_26",
    names=(
        *_COCO_NAMES,
        "top of head", "between shoulders", "base of spine", "left big toe", "right big toe", "left small toe",
        "right small toe", "left heel", "right heel",
    ),
    parents=(18, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 0, 19, 19, 15, 16, 15, 16, 15, 16),
    parts=((0, 1, 2, 3, 4, 17, 18, 19), (6, 8, 10), (5, 7, 9), (12, 14, 16, 21, 23, 25), (11, 13, 15, 20, 22, 24)),
    centre=(18, 19),
    up=(19, 18),
    across=(5, 6),
)  # fmt: skip

OPENPOSE_25 = Layout(
    name="openpose_25",
    names=(
        "nose", "between shoulders", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow",
        "left wrist", "base of spine", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
        "right eye", "left eye", "right ear", "left ear", "left big toe", "left small toe", "left heel", "right big toe",
        "right small toe", "right heel",
    ),
    parents=(1, 8, 1, 2, 3, 1, 5, 6, 8, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 14, 14, 11, 11, 11),
    parts=((0, 1, 8, 15, 16, 17, 18), (2, 3, 4), (5, 6, 7), (9, 10, 11, 22, 23, 24), (12, 13, 14, 19, 20, 21)),
    centre=(1, 8),
    up=(8, 1),
    across=(5, 2),
)  # fmt: skip

OPENPOSE_18 = Layout(
    name="openpose_18",
    names=(
        "nose", "between shoulders", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow",
        "left wrist", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
        "right eye", "left eye", "right ear", "left ear",
    ),
    parents=(1, 1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15),
    parts=((0, 1, 14, 15, 16, 17), (2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13)),
    centre=(1, 1, 8, 11),  # half-way between the neck and the middle of the hips
    up=((8, 11), 1),
    across=(5, 2),
)  # fmt: skip

H36M = Layout(
    name="h36m_17",
    names=(
        "base of spine", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "middle of spine",
        "between shoulders", "nose", "top of head", "left shoulder", "left elbow", "left wrist", "right shoulder",
        "right elbow", "right wrist",
    ),
    parents=(0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    parts=((0, 7, 8, 9, 10), (14, 15, 16), (11, 12, 13), (1, 2, 3), (4, 5, 6)),
    centre=7,
    up=(0, 7),
    across=(11, 14),
)  # fmt: skip

AZURE_KINECT = Layout(
    name="azure_kinect_32",
    names=(
        "base of spine", "spine navel", "spine chest", "neck", "left collar", "left shoulder", "left elbow", "left wrist",
        "left hand", "tip of left hand", "left thumb", "right collar", "right shoulder", "right elbow", "right wrist",
        "right hand", "tip of right hand", "right thumb", "left hip", "left knee", "left ankle", "left foot", "right hip",
        "right knee", "right ankle", "right foot", "head", "nose", "left eye", "left ear", "right eye", "right ear",
    ),
    parents=(0, 0, 1, 2, 2, 4, 5, 6, 7, 8, 7, 2, 11, 12, 13, 14, 15, 14, 0, 18, 19, 20, 0, 22, 23, 24, 3, 26, 26, 28, 26, 30),
    parts=(
        (0, 1, 2, 3, 26, 27, 28, 29, 30, 31),
        (11, 12, 13, 14, 15, 16, 17),
        (4, 5, 6, 7, 8, 9, 10),
        (22, 23, 24, 25),
        (18, 19, 20, 21),
    ),
    centre=(1, 2),  # where Kinect v2 has its middle of the spine
    up=(0, 2),
    across=(5, 12),
)  # fmt: skip

LAYOUTS = {
    layout.name: layout
    for layout in (
        KINECT_V2, KINECT_V1, SBU, SMPL_24,
        MEDIAPIPE, COCO, HALPE, OPENPOSE_25, OPENPOSE_18, H36M, AZURE_KINECT, SMPL_22,
    )
}  # fmt: skip


def get_layout(name: str) -> Layout:
    """The layout of that name; UserError with the known names when there is none."""
    if name not in LAYOUTS:
        raise UserError(f"joint layout {name!r} is not known; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
