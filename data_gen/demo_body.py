"""The bodies of the demo data set: limb lengths, joint angles, and forward kinematics onto the Kinect's 25 joints.

A performance is a track: (D, T) joint angles in degrees (`ANGLES` names the D rows; `flight` is metres above ground).
World axes: y up, and a person of heading 0 stands in the origin and faces the viewer: their right hand is at +x and
they look along -z. `pose_body` turns a track into (3, T, 25) metres: the spine and the limbs are built outward from the
pelvis, then the lowest foot is put on the ground and the body is carried over whichever foot stands, so feet do not
slip: a walk moves forward because its legs do.
"""

from dataclasses import dataclass

import numpy as np

from data_gen.demo_exact import Chance, cosine, sine

ANGLES = (
    "heading", "lean", "side", "twist", "nod", "look", "flight",
    "right_flex", "right_abduct", "right_rotate", "right_elbow", "right_wrist",
    "left_flex", "left_abduct", "left_rotate", "left_elbow", "left_wrist",
    "right_hip", "right_splay", "right_knee", "left_hip", "left_splay", "left_knee",
)  # fmt: skip
ROW = {name: i for i, name in enumerate(ANGLES)}

JOINTS = 25
X, Y, Z = 0, 1, 2


@dataclass(frozen=True)
class Subject:
    """One person's build (metres), habits (degrees) and manner (factors about 1)."""

    number: int
    lower_spine: float
    upper_spine: float
    neck: float
    head: float
    shoulder: float
    upper_arm: float
    forearm: float
    hand: float
    hip: float
    thigh: float
    shank: float
    foot: float
    rest: tuple[float, ...]  # the joint angles of standing at ease, in the order of ANGLES
    tempo: float
    amplitude: float
    sway: float


def make_subject(seed: int, number: int) -> Subject:
    """Subject `number` of the data set of this seed: 1.5 to 1.95 m tall, with limbs longer or shorter than the rule."""
    chance = Chance(seed, "subject", number)
    size = chance.uniform(0.88, 1.13)
    arm, leg, breadth = size * chance.uniform(0.92, 1.08), size * chance.uniform(0.93, 1.07), chance.uniform(0.85, 1.15)
    rest = {
        "lean": chance.uniform(-3, 9),
        "nod": chance.uniform(-5, 18),
        "right_knee": chance.uniform(2, 9),
        "left_knee": chance.uniform(2, 9),
    }
    for side in ("right", "left"):
        rest[f"{side}_flex"] = chance.uniform(-6, 8)
        rest[f"{side}_abduct"] = chance.uniform(5, 17)
        rest[f"{side}_elbow"] = chance.uniform(5, 28)
        rest[f"{side}_splay"] = chance.uniform(2, 10)
        rest[f"{side}_hip"] = rest[f"{side}_knee"] / 2
    return Subject(
        number=number,
        lower_spine=0.30 * size,
        upper_spine=0.22 * size,
        neck=0.075 * size,
        head=0.14 * size,
        shoulder=0.17 * size * breadth,
        upper_arm=0.27 * arm,
        forearm=0.245 * arm,
        hand=0.075 * arm,
        hip=0.08 * size * breadth,
        thigh=0.40 * leg,
        shank=0.385 * leg,
        foot=0.12 * size,
        rest=tuple(rest.get(name, 0.0) for name in ANGLES),
        tempo=chance.uniform(0.8, 1.25),
        amplitude=chance.uniform(0.82, 1.12),
        sway=chance.uniform(0.6, 1.6),
    )


def turn(basis: np.ndarray, axis: int, degrees) -> np.ndarray:
    """Turns a segment's frame about one of its own axes. basis (3 axes, 3 coordinates, T); degrees (T,) or a number."""
    c, s = cosine(degrees / 360.0), sine(degrees / 360.0)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turned = [None, None, None]
    turned[axis] = basis[axis]
    turned[first] = basis[first] * c + basis[second] * s
    turned[second] = basis[second] * c - basis[first] * s
    return np.stack(turned)


def _trunk(place: dict, frame: np.ndarray, track: np.ndarray, body: Subject) -> np.ndarray:
    """Places base and middle of the spine, shoulders' middle, neck and head; returns the frame of the chest."""
    half = {name: track[ROW[name]] * 0.5 for name in ("lean", "side", "twist")}
    origin = np.zeros_like(frame[0])
    for joint, above, length in ((0, 1, body.lower_spine), (1, 20, body.upper_spine)):
        frame = turn(turn(turn(frame, Y, half["twist"]), X, -half["lean"]), Z, half["side"])
        place[joint] = place.get(joint, origin)
        place[above] = place[joint] + frame[Y] * length
    place[2] = place[20] + frame[Y] * body.neck
    head = turn(turn(frame, Y, track[ROW["look"]]), X, -track[ROW["nod"]])
    place[3] = place[2] + head[Y] * body.head
    return frame


def _arm(place: dict, chest: np.ndarray, track: np.ndarray, body: Subject, side: str) -> None:
    """Places shoulder, elbow, wrist, hand, tip of the hand and thumb of one side."""
    sign = 1.0 if side == "right" else -1.0
    shoulder, elbow, wrist, hand, tip, thumb = (8, 9, 10, 11, 23, 24) if side == "right" else (4, 5, 6, 7, 21, 22)
    angle = {name: track[ROW[f"{side}_{name}"]] for name in ("flex", "abduct", "rotate", "elbow", "wrist")}
    place[shoulder] = place[20] + chest[X] * (sign * body.shoulder) - chest[Y] * (0.2 * body.shoulder)
    frame = turn(turn(turn(chest, X, angle["flex"]), Z, sign * angle["abduct"]), Y, sign * angle["rotate"])
    place[elbow] = place[shoulder] - frame[Y] * body.upper_arm
    frame = turn(frame, X, angle["elbow"])
    place[wrist] = place[elbow] - frame[Y] * body.forearm
    frame = turn(frame, X, angle["wrist"])
    place[hand] = place[wrist] - frame[Y] * body.hand
    place[tip] = place[hand] - frame[Y] * body.hand
    place[thumb] = place[wrist] - frame[Y] * (0.7 * body.hand) - frame[Z] * (0.6 * body.hand)


def _leg(place: dict, pelvis: np.ndarray, track: np.ndarray, body: Subject, side: str) -> None:
    """Places hip, knee, ankle and foot of one side; hip angles count from the vertical, feet stay about level."""
    sign = 1.0 if side == "right" else -1.0
    hip, knee, ankle, foot = (16, 17, 18, 19) if side == "right" else (12, 13, 14, 15)
    place[hip] = place[0] + pelvis[X] * (sign * body.hip) - pelvis[Y] * (0.5 * body.hip)
    frame = turn(turn(pelvis, X, track[ROW[f"{side}_hip"]]), Z, sign * track[ROW[f"{side}_splay"]])
    place[knee] = place[hip] - frame[Y] * body.thigh
    frame = turn(frame, X, -track[ROW[f"{side}_knee"]])
    place[ankle] = place[knee] - frame[Y] * body.shank
    # The foot hangs a little, the more the knee is bent, as a relaxed ankle does.
    level = turn(pelvis, X, -25.0 - 0.2 * track[ROW[f"{side}_knee"]])
    place[foot] = place[ankle] - level[Z] * body.foot


def pose_body(track: np.ndarray, body: Subject) -> np.ndarray:
    """(D, T) angles -> (3, T, 25) metres in the world, beginning with the pelvis above the origin."""
    frames = track.shape[1]
    frame = np.zeros((3, 3, frames), dtype=np.float64)
    for axis in range(3):
        frame[axis, axis] = 1.0
    pelvis = turn(frame, Y, track[ROW["heading"]])
    place: dict[int, np.ndarray] = {}
    chest = _trunk(place, pelvis, track, body)
    for side in ("right", "left"):
        _arm(place, chest, track, body, side)
        _leg(place, pelvis, track, body, side)
    points = np.stack([place[joint] for joint in range(JOINTS)], axis=-1)  # (3, T, V)
    points = points + _carried_by_the_feet(points)[:, :, None]
    lowest = np.minimum(np.minimum(points[Y, :, 18], points[Y, :, 14]), np.minimum(points[Y, :, 19], points[Y, :, 15]))
    points[Y] = points[Y] + (track[ROW["flight"]] - lowest)[:, None]
    return points


def _carried_by_the_feet(points: np.ndarray) -> np.ndarray:
    """(3, T) the way of the pelvis over the ground under which the standing foot, or both, stays where it is."""
    right, left = points[:, :, 18], points[:, :, 14]
    share = np.minimum(np.maximum(0.5 + (left[Y] - right[Y]) / 0.06, 0.0), 1.0)[1:]  # of the right foot
    steps = (right[:, 1:] - right[:, :-1]) * share + (left[:, 1:] - left[:, :-1]) * (1.0 - share)
    way = np.zeros_like(right)
    way[:, 1:] = -np.add.accumulate(steps, axis=1)
    way[Y] = 0.0
    return way
