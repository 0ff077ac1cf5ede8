"""Scenes of the demo data set: who does what where, for clips and for untrimmed videos.

A scene is a list of people in the world, (3, T, 25) float64 metres each, T <= MAX_FRAMES for a clip. All chance comes from
the seed and the scene's own numbers, so any scene can be made alone, and the three cameras see the same one.
"""

import numpy as np

from data_gen.demo_actions import (
    ONE_PERSON,
    RATE,
    SECONDS,
    TWO_PERSONS,
    Actor,
    Timeline,
    add_nuisance,
    make_actor,
    perform,
)
from data_gen.demo_body import make_subject, pose_body
from data_gen.demo_exact import Chance, cosine, sine, smooth
from options.class_names import DEMO

MIN_FRAMES, MAX_FRAMES = 44, 128
MAX_LENGTH = 100.0  # frames of the action itself
REST = (0.6, 2.0)  # seconds of a clip in which the action has not begun, or is over
SUBJECTS = 16
FACING = 20.0  # degrees to either side that people are turned away from the middle camera

PAUSE = (0.7, 2.0)  # seconds between two actions of a video
SHIFT = 0.5  # seconds in which people get from the end of an action to the posture before the next one


def make_timeline(action: str, tempo: float, chance: Chance) -> Timeline:
    """When the action begins and ends within a clip, in frames: at rest, at tempo 1 it takes SECONDS[action]."""
    least, most = SECONDS[action]
    length = RATE * chance.uniform(least, most) / (tempo * chance.uniform(0.88, 1.12))
    length = min(length, MAX_LENGTH)
    frames = int(np.ceil(length + RATE * chance.uniform(*REST)))
    frames = min(MAX_FRAMES, max(MIN_FRAMES, frames))
    return Timeline(frames, (frames - length) * chance.uniform(0.03, 0.97), length)


def place(person: np.ndarray, degrees: float, x: float, z: float) -> np.ndarray:
    """The person (3, T, V) turned about the world's upright axis and moved over the ground."""
    c, s = float(cosine(degrees / 360.0)), float(sine(degrees / 360.0))
    return np.stack([person[0] * c + person[2] * s + x, person[1], person[2] * c - person[0] * s + z])


def _centred(person: np.ndarray) -> np.ndarray:
    """Moves the middle of the way from the first to the last frame above the origin."""
    middle = (person[:, 0, 0] + person[:, -1, 0]) * 0.5
    return np.stack([person[0] - middle[0], person[1], person[2] - middle[2]])


def _facing_each_other(people: list[np.ndarray], nearest: float, turned: float) -> list[np.ndarray]:
    """Puts two people, who look along -z and walk along z, on a line, `nearest` metres apart where they are closest."""
    left, right = (place(person, degrees, 0.0, 0.0) for person, degrees in zip(people, (-90.0, 90.0), strict=True))
    gap = float((right[0, :, 0] - left[0, :, 0]).min())
    right = place(right, 0.0, nearest - gap, 0.0)
    middle = (left[0, 0, 0] + left[0, -1, 0] + right[0, 0, 0] + right[0, -1, 0]) * 0.25
    return [place(place(person, 0.0, -middle, 0.0), turned, 0.0, 0.0) for person in (left, right)]


def make_clip_scene(seed: int, action: int, subject: int, repetition: int) -> list[np.ndarray]:
    """The people of one performance: action 0.., subject 1..SUBJECTS, repetition 1.. ."""
    name = DEMO[action]
    chance = Chance(seed, "performance", action, subject, repetition)
    first = make_actor(make_subject(seed, subject), chance)
    timeline = make_timeline(name, first.subject.tempo, chance)
    people = [pose_body(perform(name, timeline, first), first.subject)]
    if name in ONE_PERSON:
        turned = chance.uniform(-FACING, FACING)
        return [place(_centred(people[0]), turned, chance.uniform(-0.3, 0.3), chance.uniform(-0.3, 0.3))]
    partner = 1 + (subject - 1 + chance.integer(1, SUBJECTS - 1)) % SUBJECTS
    second = make_actor(make_subject(seed, partner), chance)
    late = Timeline(timeline.frames, max(0.0, timeline.onset + chance.uniform(-6, 6)), timeline.length)
    people.append(pose_body(perform(name, late, second), second.subject))
    return _facing_each_other(people, chance.uniform(0.8, 1.3), chance.uniform(-FACING, FACING))


def _video_track(actor: Actor, parts: list, frames: int) -> np.ndarray:
    """(D, frames) one actor's angles through a video. parts: (start, track, action or None) in the order of time; between
    two parts the actor shifts to the next one's first posture and waits in it."""
    track = np.repeat(parts[0][1][:, :1], frames, axis=1)
    time = np.arange(frames, dtype=np.float64)
    end = 0
    for start, part, _ in parts:
        before, after = track[:, end].copy(), part[:, 0]
        shift = smooth((time[end:] - end) / (RATE * SHIFT))
        track[:, end:] = before[:, None] + (after - before)[:, None] * shift
        track[:, start : start + part.shape[1]] = part
        end = start + part.shape[1]
        last = part[:, -1]
        track[:, end:] = (last - 360.0 * np.rint(last / 360.0))[:, None]  # an arm that circled need not turn back
    add_nuisance(track, actor, False)
    return track


def _choose_actions(pair: bool, chance: Chance) -> list[str]:
    """Five to eight actions; two people alternate between coming close and stepping apart, and act in between."""
    alone = [name for name in ONE_PERSON if not (pair and name.startswith("walk"))]
    together = list(TWO_PERSONS)
    chosen, close = [], 0
    for _ in range(chance.integer(5, 8)):
        if pair and chance.chance(0.5):
            chosen.append(together[close % 2])
            close += 1
        else:
            chosen.append(chance.choice(alone))
    return chosen


def make_video_scene(seed: int, number: int, subject: int, pair: bool):
    """An untrimmed scene: (people, segments [(class, start, end)]), frames [start, end) counted from 0."""
    chance = Chance(seed, "video", number)
    actors = [make_actor(make_subject(seed, subject), chance)]
    if pair:
        partner = 1 + (subject - 1 + chance.integer(1, SUBJECTS - 1)) % SUBJECTS
        actors.append(make_actor(make_subject(seed, partner), chance))
    parts: list[list] = [[] for _ in actors]
    segments = []
    at = int(RATE * chance.uniform(*PAUSE))
    for name in _choose_actions(pair, chance):
        inner = make_timeline(name, actors[0].subject.tempo, chance)
        inner = Timeline(int(np.ceil(inner.length)) + 1, 0.0, inner.length)  # without the rest before and after
        for i, actor in enumerate(actors):
            if i == 0 or name in TWO_PERSONS:
                parts[i].append((at, perform(name, inner, actor, nuisance=False), name))
        segments.append((DEMO.index(name), at, at + inner.frames))
        at += inner.frames + int(RATE * (SHIFT + chance.uniform(*PAUSE)))
    for i, actor in enumerate(actors):
        if not parts[i]:
            parts[i].append((0, actor.pose("ease")[:, None], None))
    people = [
        pose_body(_video_track(actor, part, at), actor.subject) for actor, part in zip(actors, parts, strict=True)
    ]
    turned = chance.uniform(-FACING, FACING)
    if pair:
        return _facing_each_other(people, chance.uniform(0.8, 1.1), turned), segments
    return [place(_centred(people[0]), turned, 0.0, 0.0)], segments
