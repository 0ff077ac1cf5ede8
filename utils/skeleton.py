"""Joint layouts: the only place in the project with joint numbers.

A `Layout` says what a clip of one sensor looks like: names, parents (for the bone stream and for drawing), the five
body parts that the mask and the mixing hide or swap, and the joints that normalisation turns a clip by. `LAYOUTS` has a
row for each layout that is known; a data set names its layout, and everything above takes V from there.

Joint numbers are 0-based. Kinect v2's parents are the released pairs of the bone stream; its tree is rooted at the
joint between the shoulders (20), whose bone is zero.
"""

from dataclasses import dataclass

from utils.errors import UserError


@dataclass(frozen=True)
class Layout:
    """One sensor's skeleton.

    names: V joint names; parents: V joint numbers (the root is its own parent); parts: five tuples of joints that
    together name every joint once, in the order trunk, arm, arm, leg, leg; centre: the joint moved to the origin;
    up: (from, to), turned to +z; across: (from, to), turned to +x.
    """

    name: str
    names: tuple[str, ...]
    parents: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    centre: int
    up: tuple[int, int]
    across: tuple[int, int]

    @property
    def joints(self) -> int:
        return len(self.names)

    def __post_init__(self):
        if len(self.parents) != self.joints:
            raise ValueError(f"layout {self.name}: {len(self.parents)} parents for {self.joints} joints")
        if sorted(j for part in self.parts for j in part) != list(range(self.joints)):
            raise ValueError(f"layout {self.name}: the body parts must name each of the {self.joints} joints once")


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
        "hip centre", "spine", "shoulder centre", "head",
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
        "head", "neck", "torso",
        "left shoulder", "left elbow", "left hand", "right shoulder", "right elbow", "right hand",
        "left hip", "left knee", "left foot", "right hip", "right knee", "right foot",
    ),
    parents=(1, 1, 1, 1, 3, 4, 1, 6, 7, 2, 9, 10, 2, 12, 13),
    parts=((0, 1, 2), (6, 7, 8), (3, 4, 5), (12, 13, 14), (9, 10, 11)),
    centre=2,
    up=(2, 1),
    across=(3, 6),
)  # fmt: skip

SMPL = Layout(
    name="smpl_24",
    names=(
        "pelvis", "left hip", "right hip", "lower spine", "left knee", "right knee", "middle spine",
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

LAYOUTS = {layout.name: layout for layout in (KINECT_V2, KINECT_V1, SBU, SMPL)}


def get_layout(name: str) -> Layout:
    """The layout of that name; UserError with the known names when there is none."""
    if name not in LAYOUTS:
        raise UserError(f"joint layout {name!r} is not known; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
