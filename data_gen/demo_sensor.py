"""What a depth sensor sees of the demo's people: three cameras, noise, hidden joints, dropouts, lost frames.

`see` takes people in the world (metres, y up, heading 0 looks along -z) and gives what one camera records: camera
coordinates (x to the sensor's left, y up, z away from it, in metres, on a grid of 0.1 mm), float32, as the Kinect's
files hold them. Every camera errs in its own way:

* each joint has a constant and a slowly changing error for the clip, and a fresh one in each frame; hands and feet err
  most, and all errors grow with the distance;
* a joint behind the trunk is guessed: its slow error is several times larger;
* now and then a hand or a foot freezes, or is found somewhere else, for some frames;
* frames are lost (left out of the clip, as the sensor does not notice), and a second person is lost for a while (zeros).
"""

from dataclasses import dataclass

import numpy as np

from data_gen.demo_exact import Chance, cosine, sine, smooth

GRID = 10000.0  # steps a metre: 0.1 mm


@dataclass(frozen=True)
class Camera:
    """azimuth and pitch in degrees (pitch > 0 looks down), height and distance of the scene's middle in metres."""

    azimuth: float
    height: float
    pitch: float
    distance: float


CAMERAS = {1: Camera(-45.0, 1.3, 6.0, 3.4), 2: Camera(0.0, 1.0, 0.0, 3.0), 3: Camera(45.0, 1.5, 9.0, 3.7)}

# How much larger than those of the trunk the errors of a joint are.
ERROR = np.array(
    [1.0, 0.8, 1.0, 1.2, 1.3, 1.6, 2.0, 2.4, 1.3, 1.6, 2.0, 2.4, 1.1, 1.5, 2.2, 2.8, 1.1, 1.5, 2.2, 2.8]
    + [0.8, 3.4, 3.6, 3.4, 3.6]
)
CONSTANT, SLOW, FRESH = 0.014, 0.010, 0.004  # metres, of the trunk at 3 m
KNOT = 8  # frames between two independent values of the slow error
HIDDEN = 4.0  # times the slow error of a joint behind the trunk
CHAINS = ((10, 11, 23, 24), (6, 7, 21, 22), (9, 10, 11, 23, 24), (5, 6, 7, 21, 22), (18, 19), (14, 15))


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """World (3, T, V) -> camera coordinates (3, T, V)."""
    c, s = float(cosine(camera.azimuth / 360.0)), float(sine(camera.azimuth / 360.0))
    x, z = points[0] * c + points[2] * s, points[2] * c - points[0] * s
    y, z = points[1] - camera.height, z + camera.distance
    c, s = float(cosine(camera.pitch / 360.0)), float(sine(camera.pitch / 360.0))
    return np.stack([x, y * c + z * s, z * c - y * s])


def _slow_error(frames: int, chance: Chance) -> np.ndarray:
    """(3, T, V) curves of deviation about 1 through a random value every KNOT frames."""
    knots = chance.normal((3, frames // KNOT + 2, len(ERROR)))
    place = np.arange(frames, dtype=np.float64) / KNOT
    before = np.floor(place).astype(np.int64)
    share = smooth(place - before)[None, :, None]
    return knots[:, before] * (1.0 - share) + knots[:, before + 1] * share


def _add_noise(seen: np.ndarray, chance: Chance) -> np.ndarray:
    """Errors of every joint of one person; (3, T, V) in the camera's coordinates."""
    frames = seen.shape[1]
    scale = ERROR * (seen[2, :, :1] / 3.0)  # (T, V), grows with the distance
    behind = (seen[2] - seen[2, :, 1:2] > 0.05) & (np.abs(seen[0] - seen[0, :, 1:2]) < 0.20)
    slow = SLOW * (1.0 + (HIDDEN - 1.0) * behind)
    error = CONSTANT * chance.normal((3, 1, len(ERROR))) + slow * _slow_error(frames, chance)
    return seen + scale * (error + FRESH * chance.normal((3, frames, len(ERROR))))


def _add_dropouts(seen: np.ndarray, chance: Chance) -> None:
    """In place: for some frames a hand or a foot freezes where it was, or is found up to 0.3 m away."""
    frames = seen.shape[1]
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
        chain = list(chance.choice(CHAINS))
        start = chance.integer(0, frames - 1)
        stop = min(frames, start + chance.integer(4, 18))
        if chance.chance(0.6):
            seen[:, start:stop, chain] = seen[:, start : start + 1, chain]
        else:
            seen[:, start:stop, chain] += chance.uniform(-0.2, 0.2, (3, 1, 1))


def _frames_kept(frames: int, chance: Chance) -> np.ndarray:
    """Numbers of the frames that the sensor delivers: some are lost one by one, sometimes a few in a row."""
    kept = chance.uniform(size=(frames,)) >= chance.choice((0.0, 0.01, 0.03, 0.06))
    if chance.chance(0.25):
        start = chance.integer(0, frames - 1)
        kept[start : start + chance.integer(2, 6)] = False
    kept[0] = True
    return np.flatnonzero(kept)


def see(people: list[np.ndarray], camera: int, chance: Chance, lose_frames: bool = True) -> np.ndarray:
    """What camera 1..3 records: people (3, T, V) in the world -> (3, t, V, M) float32 metres, t <= T, on the grid."""
    recorded = []
    for number, person in enumerate(people):
        seen = _add_noise(project(person, CAMERAS[camera]), chance)
        _add_dropouts(seen, chance)
        seen = np.rint(seen * GRID)
        if number and chance.chance(0.2):
            start = chance.integer(0, seen.shape[1] - 1)
            seen[:, start : start + chance.integer(3, 10)] = 0.0
        recorded.append(seen)
    clip = np.stack(recorded, axis=-1)
    if lose_frames:
        clip = clip[:, _frames_kept(clip.shape[1], chance)]
    return (clip / GRID).astype(np.float32)
