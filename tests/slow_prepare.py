"""Slow twins of the preparation, typed plainly: a line, a frame, a joint at a time, as such scripts usually are.

The tests hold the fast code against them, and benchmarks/bench_prepare.py measures what the array operations gain.
"""

import numpy as np


def slow_bodies(text: str) -> np.ndarray:
    """The persons (4, T, 25, 3) of a `.skeleton` text by their place in the frame, every value of it converted."""
    lines = iter(text.split("\n"))
    recording = []
    for _ in range(int(next(lines))):
        bodies = []
        for _ in range(int(next(lines))):
            head = next(lines).split()
            body = {"id": head[0], "state": [float(value) for value in head[1:]], "joints": []}
            for _ in range(int(next(lines))):
                values = [float(value) for value in next(lines).split()]
                body["joints"].append({"x": values[0], "y": values[1], "z": values[2], "rest": values[3:]})
            bodies.append(body)
        recording.append(bodies)
    persons = np.zeros((4, len(recording), 25, 3))
    for t, bodies in enumerate(recording):
        for k, body in enumerate(bodies):
            for v, joint in enumerate(body["joints"]):
                if k < 4:
                    persons[k, t, v] = [joint["x"], joint["y"], joint["z"]]
    return persons


def slow_select(persons: np.ndarray) -> np.ndarray:
    """The two persons of highest energy, (3, T, 25, 2) float32."""
    energies = []
    for person in persons:
        seen = np.array([frame for frame in person if frame.any()])
        energies.append(sum(seen[:, :, c].std() for c in range(3)) if len(seen) else 0.0)
    order = sorted(range(len(persons)), key=lambda k: (energies[k], k), reverse=True)
    return np.array([persons[k] for k in order[:2]]).transpose(3, 1, 2, 0).astype(np.float32)


def _slow_turn(vector, axis) -> np.ndarray:
    """The rotation of `vector` onto the unit vector `axis`, by the unit quaternion of half the angle."""
    normal = np.cross(vector, axis)
    if np.abs(vector).sum() < 1e-6 or np.abs(normal).sum() < 1e-6:
        return np.eye(3)
    angle = np.arccos(np.clip(np.dot(vector / np.linalg.norm(vector), axis), -1, 1))
    if abs(angle) < 1e-6:
        return np.eye(3)
    w = np.cos(angle / 2)
    x, y, z = np.sin(angle / 2) * normal / np.linalg.norm(normal)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _slow_fill(people: np.ndarray) -> None:
    """Step 1 on people (M, T, V, C), in place."""
    for person in people:
        total = len(person)
        if not person.any():
            continue
        if not person[0].any():
            kept = [frame.copy() for frame in person if frame.any()]
            person[:] = 0
            for t, frame in enumerate(kept):
                person[t] = frame
        end = total
        while not person[end - 1].any():
            end -= 1
        for t in range(end, total):
            person[t] = person[t % end]


def _slow_place(frame: np.ndarray, place) -> np.ndarray:
    """(3,): a joint of frame (V, 3), or the mean of several."""
    joints = [place] if isinstance(place, int) else place
    total = np.zeros(3)
    for joint in joints:
        total = total + frame[joint]
    return total / len(joints)


def slow_normalise(clip: np.ndarray, layout, steps) -> np.ndarray:
    """data_gen.normalise.normalise, walking frames and joints."""
    people = clip.transpose(3, 1, 2, 0).astype(np.float32).copy()  # (M, T, V, C)
    if not people.any():
        return clip.copy()
    if "fill" in steps:
        _slow_fill(people)
    if "centre" in steps:
        origin = [_slow_place(frame, layout.centre).astype(np.float32) for frame in people[0]]
        for person in people:
            for t, frame in enumerate(person):
                for joint in frame:
                    if joint.any():
                        joint -= origin[t]
    for step, pair, axis in (("spine", layout.up, [0, 0, 1]), ("shoulders", layout.across, [1, 0, 0])):
        if step in steps:
            start, end = (_slow_place(people[0, 0], place) for place in pair)
            matrix = _slow_turn(end - start, np.array(axis, float))
            for person in people:
                for frame in person:
                    if frame.any():
                        for joint in frame:
                            joint[:] = np.dot(matrix, joint)
    return people.transpose(3, 1, 2, 0)
