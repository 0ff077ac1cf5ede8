"""The actions of the demo data set: which joint angle goes where, when.

The actions come in families that share their postures and differ in the order and the direction of movement, so that a
single frame tells the family but hardly the action: an arm that is half up may be raised, lowered or waved; somebody
with bent knees may sit down, get up, squat or be about to jump; whoever pushes passes the same places as whoever
pulls; walking backwards is walking forwards, reversed.

An action is a function (timeline, actor) -> (D, T) angles in degrees. A `Timeline` says when it begins and how long
it takes in frames; the `Actor` is a subject with the chance, size and manner of this one performance. Around the action
the actor holds the first and the last posture; `add_nuisance` then adds what does not tell the action: sway, a turning
head, an idle arm with occupations of its own.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_gen.demo_body import ANGLES, ROW, Subject
from data_gen.demo_exact import Chance, cosine, sine, smooth
from options.class_names import DEMO

RATE = 30.0  # frames a second
LEFT_HANDED = 0.3  # share of performances with left and right exchanged
GRAVITY = 9.81

# Postures: degrees that differ from standing at ease. "both_" stands for right_ and left_.
POSES = {
    "ease": {},
    "arm up": {"right_abduct": 82, "right_rotate": -85, "right_elbow": 88, "side": -3},
    "hands at chest": {"both_flex": 12, "both_abduct": 26, "both_elbow": 122, "both_rotate": 12, "lean": 3},
    "hands ahead": {"both_flex": 80, "both_abduct": 4, "both_elbow": 14, "both_rotate": 0, "lean": 12},
    "half seated": {"both_hip": 62, "both_knee": 72, "lean": 42, "both_flex": 30, "both_elbow": 30},
    "seated": {"both_hip": 84, "both_knee": 86, "lean": 4, "both_flex": 22, "both_elbow": 42, "both_splay": 12},
    "squatting": {"both_hip": 80, "both_knee": 98, "lean": 32, "both_flex": 30, "both_elbow": 34, "both_splay": 12},
    "crouching": {"both_hip": 62, "both_knee": 82, "lean": 40, "both_flex": 20, "both_elbow": 30, "both_splay": 10},
    "stretched": {"both_flex": 85, "both_elbow": 34, "both_hip": 2, "both_knee": 6, "lean": -2, "nod": -8},
}


@dataclass(frozen=True)
class Timeline:
    """`frames` in all; the action runs over `length` frames from frame `onset`."""

    frames: int
    onset: float
    length: float

    def phase(self) -> np.ndarray:
        """(frames,) 0 before the action, rising to 1 through it, 1 after it."""
        t = (np.arange(self.frames, dtype=np.float64) - self.onset) / self.length
        return np.minimum(np.maximum(t, 0.0), 1.0)


@dataclass(frozen=True)
class Actor:
    """A subject in one performance: amplitude scales how far postures go, bend (-0.5..0.5) makes the first or the last
    half of a movement the faster one."""

    subject: Subject
    chance: Chance
    amplitude: float
    bend: float

    def rest(self) -> np.ndarray:
        """(D,) degrees of standing at ease."""
        return np.asarray(self.subject.rest, dtype=np.float64)

    def pose(self, name: str, scatter: float = 4.0) -> np.ndarray:
        """(D,) degrees of a posture as this actor takes it this time."""
        target = self.rest()
        for key, degrees in POSES[name].items():
            for angle in (f"right_{key[5:]}", f"left_{key[5:]}") if key.startswith("both_") else (key,):
                i = ROW[angle]
                target[i] = target[i] + self.amplitude * (degrees - target[i]) + scatter * self.chance.normal()
        return target


def make_actor(subject: Subject, chance: Chance) -> Actor:
    """The subject with the manner of one performance."""
    amplitude = subject.amplitude * chance.uniform(0.9, 1.08)
    return Actor(subject, chance, amplitude, chance.uniform(-0.45, 0.45))


def _steps(timeline: Timeline, actor: Actor, *keys) -> np.ndarray:
    """Through postures: keys are (phase, (D,) degrees), in order; between two of them all joints move smoothly."""
    p = timeline.phase()
    p = p + actor.bend * p * (1.0 - p)
    track = np.repeat(keys[0][1][:, None], timeline.frames, axis=1)
    for (begin, before), (end, after) in zip(keys[:-1], keys[1:], strict=True):
        track = track + (after - before)[:, None] * smooth((p - begin) / (end - begin))
    return track


def _raise_arm(timeline, actor):
    return _steps(timeline, actor, (0.0, actor.pose("ease")), (1.0, _arm_up(actor)))


def _lower_arm(timeline, actor):
    return _steps(timeline, actor, (0.0, _arm_up(actor)), (1.0, actor.pose("ease")))


def _arm_up(actor):
    """The raised arm, anywhere a waving hand passes."""
    pose = actor.pose("arm up", scatter=6.0)
    pose[ROW["right_elbow"]] += actor.chance.uniform(-26, 26)
    return pose


def _wave(timeline, actor):
    track = np.repeat(actor.pose("arm up", scatter=6.0)[:, None], timeline.frames, axis=1)
    time = np.arange(timeline.frames, dtype=np.float64) / RATE
    cycle = 0.75 / (actor.subject.tempo * actor.chance.uniform(0.85, 1.15))
    swing = sine(time / cycle + actor.chance.uniform())
    track[ROW["right_elbow"]] += 28.0 * actor.amplitude * swing
    track[ROW["right_wrist"]] += 14.0 * actor.amplitude * swing
    return track


def _circle(timeline, actor, direction):
    """Whole circles of the stretched right arm from hanging, forwards (up in front) or backwards (up behind)."""
    track = np.repeat(actor.pose("ease")[:, None], timeline.frames, axis=1)
    p = timeline.phase()
    turns = max(1.0, np.rint(timeline.length / RATE * actor.subject.tempo * 0.8)) + actor.chance.uniform(-0.15, 0.3)
    start = actor.chance.uniform(-70, 70)
    swept = p * turns - 0.06 * (1.0 - smooth(4.0 * p)) * p  # begins gently
    track[ROW["right_flex"]] += direction * (360.0 * swept) + start
    out = smooth(6.0 * p) * actor.chance.uniform(6, 22)
    track[ROW["right_abduct"]] += out
    track[ROW["right_elbow"]] *= 0.6
    track[ROW["twist"]] += direction * 6.0 * sine(swept)
    return track


def _push(timeline, actor):
    ease, chest, ahead = (actor.pose(name) for name in ("ease", "hands at chest", "hands ahead"))
    a = actor.chance.uniform(0.28, 0.38)
    b = actor.chance.uniform(0.58, 0.70)
    return _steps(timeline, actor, (0.0, ease), (a, chest), (b, ahead), (1.0, ease))


def _pull(timeline, actor):
    ease, chest, ahead = (actor.pose(name) for name in ("ease", "hands at chest", "hands ahead"))
    a = actor.chance.uniform(0.28, 0.38)
    b = actor.chance.uniform(0.58, 0.70)
    return _steps(timeline, actor, (0.0, ease), (a, ahead), (b, chest), (1.0, ease))


def _sit_down(timeline, actor):
    middle = actor.chance.uniform(0.42, 0.58)
    poses = [actor.pose(name) for name in ("ease", "half seated", "seated")]
    return _steps(timeline, actor, (0.0, poses[0]), (middle, poses[1]), (1.0, poses[2]))


def _stand_up(timeline, actor):
    middle = actor.chance.uniform(0.42, 0.58)
    poses = [actor.pose(name) for name in ("seated", "half seated", "ease")]
    return _steps(timeline, actor, (0.0, poses[0]), (middle, poses[1]), (1.0, poses[2]))


def _squat(timeline, actor):
    ease, low = actor.pose("ease"), actor.pose("squatting")
    a = actor.chance.uniform(0.35, 0.45)
    b = actor.chance.uniform(0.52, 0.62)
    return _steps(timeline, actor, (0.0, ease), (a, low), (b, low), (1.0, ease))


def _jump(timeline, actor):
    actor = replace(actor, bend=0.4 * actor.bend)  # gravity leaves little choice of tempo
    ease, low, high, land = (actor.pose(name) for name in ("ease", "crouching", "stretched", "crouching"))
    keys = ((0.0, ease), (0.30, low), (0.51, high), (0.70, land), (1.0, ease))
    track = _steps(timeline, actor, *keys)
    p = timeline.phase()
    p = p + actor.bend * p * (1.0 - p)
    air = np.minimum(np.maximum((p - 0.45) / 0.18, 0.0), 1.0)
    seconds = 0.18 * timeline.length / RATE
    height = min(GRAVITY * seconds * seconds / 8.0, 0.35)  # of a throw that lasts so long
    track[ROW["flight"]] += 4.0 * height * air * (1.0 - air)
    return track


def _walk(timeline, actor, direction, stride=24.0, cycle=1.1):
    """Steps on the way: thighs swing, the knee bends while its leg swings, arms swing against the legs."""
    track = np.repeat(actor.pose("ease")[:, None], timeline.frames, axis=1)
    cycle = cycle / (actor.subject.tempo * actor.chance.uniform(0.88, 1.12))
    time = (np.arange(timeline.frames, dtype=np.float64) - timeline.onset) / RATE
    strength = actor.amplitude * smooth(time / (0.6 * cycle))
    end = (timeline.onset + timeline.length) / RATE
    strength = strength * smooth((end - np.arange(timeline.frames, dtype=np.float64) / RATE) / (0.6 * cycle))
    turns = direction * time / cycle + actor.chance.uniform(-0.12, 0.12)
    for side, shift in (("right", 0.0), ("left", 0.5)):
        swing, speed = sine(turns + shift), cosine(turns + shift)
        lift = np.maximum(speed, 0.0)
        track[ROW[f"{side}_hip"]] += strength * (stride * swing + 0.2 * stride)
        track[ROW[f"{side}_knee"]] += strength * (2.0 * stride) * lift * lift
        track[ROW[f"{side}_flex"]] -= strength * 0.8 * stride * swing
        track[ROW[f"{side}_elbow"]] += strength * 12.0
    track[ROW["twist"]] += strength * 0.25 * stride * sine(turns)
    track[ROW["lean"]] += strength * 3.0
    return track


ONE_PERSON = {
    "raise an arm": _raise_arm,
    "lower an arm": _lower_arm,
    "wave": _wave,
    "circle an arm forwards": lambda timeline, actor: _circle(timeline, actor, 1.0),
    "circle an arm backwards": lambda timeline, actor: _circle(timeline, actor, -1.0),
    "push away": _push,
    "pull towards": _pull,
    "sit down": _sit_down,
    "stand up": _stand_up,
    "squat": _squat,
    "jump": _jump,
    "walk forwards": lambda timeline, actor: _walk(timeline, actor, 1.0),
    "walk backwards": lambda timeline, actor: _walk(timeline, actor, -1.0),
}
TWO_PERSONS = {
    "step towards each other": lambda timeline, actor: _walk(timeline, actor, 1.0, stride=11.0, cycle=1.2),
    "step apart": lambda timeline, actor: _walk(timeline, actor, -1.0, stride=11.0, cycle=1.2),
}
ACTIONS = {**ONE_PERSON, **TWO_PERSONS}
if tuple(ACTIONS) != DEMO:
    raise ImportError("options.class_names.DEMO must name the actions of data_gen.demo_actions in their order")

# Seconds that an action takes at tempo 1: (least, most).
SECONDS = {
    "raise an arm": (0.9, 1.6),
    "lower an arm": (0.9, 1.6),
    "wave": (1.6, 3.0),
    "circle an arm forwards": (1.8, 3.2),
    "circle an arm backwards": (1.8, 3.2),
    "push away": (1.6, 2.6),
    "pull towards": (1.6, 2.6),
    "sit down": (1.3, 2.2),
    "stand up": (1.3, 2.2),
    "squat": (1.6, 2.6),
    "jump": (1.9, 2.7),
    "walk forwards": (2.0, 3.6),
    "walk backwards": (2.0, 3.6),
    "step towards each other": (1.8, 3.2),
    "step apart": (1.8, 3.2),
}

USES_LEFT_ARM = {
    "push away",
    "pull towards",
    "sit down",
    "stand up",
    "squat",
    "jump",
    "walk forwards",
    "walk backwards",
}


def add_nuisance(track: np.ndarray, actor: Actor, idle_left: bool) -> None:
    """Adds, in place, what does not tell the action: sway of the body, a head that looks about, a trembling of the
    arms, and (`idle_left`) a left arm with an occupation of its own: at the hip, held before the body, or drifting."""
    frames, chance, sway = track.shape[1], actor.chance, actor.subject.sway
    for name, degrees, seconds in (
        ("lean", 4.0, 2.5),
        ("side", 3.5, 2.0),
        ("twist", 8.0, 2.5),
        ("nod", 8.0, 1.5),
        ("look", 20.0, 1.8),
        ("heading", 6.0, 3.0),
    ):
        track[ROW[name]] += sway * degrees * chance.wander(frames, seconds)
    for side in ("right", "left"):
        for name, degrees in (("flex", 6.0), ("abduct", 4.0), ("elbow", 8.0), ("wrist", 10.0), ("rotate", 8.0)):
            track[ROW[f"{side}_{name}"]] += sway * degrees * chance.wander(frames, 1.2)
    if idle_left:
        _occupy_left_arm(track, chance)
    for bend in ("right_elbow", "left_elbow", "right_knee", "left_knee"):
        track[ROW[bend]] = np.maximum(track[ROW[bend]], 0.0)  # they bend one way only


def _occupy_left_arm(track: np.ndarray, chance: Chance) -> None:
    """In place: something that the idle left arm does meanwhile, or keeps doing."""
    frames = track.shape[1]
    habit = chance.choice(("hanging", "hip", "front", "drift", "drift"))
    if habit == "hip":
        track[ROW["left_abduct"]] += 38.0
        track[ROW["left_elbow"]] += 75.0
        track[ROW["left_rotate"]] += 60.0
    elif habit == "front":
        track[ROW["left_elbow"]] += 80.0
        track[ROW["left_rotate"]] += 45.0
    elif habit == "drift":
        track[ROW["left_flex"]] += 26.0 * chance.wander(frames, 2.0) + 20.0
        track[ROW["left_elbow"]] += 34.0 * (1.0 + chance.wander(frames, 1.5))


def mirrored(track: np.ndarray) -> np.ndarray:
    """The same movement with left and right exchanged."""
    other = [name.replace("right", "left") if "right" in name else name.replace("left", "right") for name in ANGLES]
    swapped = track[[ROW[name] for name in other]]
    for name in ("heading", "side", "twist", "look"):
        swapped[ROW[name]] *= -1.0
    return swapped


def perform(action: str, timeline: Timeline, actor: Actor, nuisance: bool = True) -> np.ndarray:
    """(D, T) degrees of one actor doing the action along the timeline."""
    track = ACTIONS[action](timeline, actor)
    if nuisance:
        add_nuisance(track, actor, action not in USES_LEFT_ARM)
    if actor.chance.chance(LEFT_HANDED):
        track = mirrored(track)
    assert track.shape == (len(ANGLES), timeline.frames)
    return track
