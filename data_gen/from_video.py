"""Makes a data set of videos (mp4, avi, mov, mkv, webm, ...): `python -m data_gen.from_video my_videos --name mine`.

MediaPipe finds the pose of one person in each frame. Its 33 world landmarks are stored in a file per video, which
`data_gen.from_poses` (and `tools.extract_features --input`) reads like any other poses. All flags of from_poses are
accepted here; labels come from the folder names, for example.

World landmarks are in metres, upright as the camera sees them, with the origin between the hips: the motion of the body
is kept, its path through the room is lost. For more than one person use another estimator and data_gen.from_poses.

A stopped conversion resumes: a video whose poses are stored is not read again. Videos without a person are listed.
MediaPipe (requirements-video.txt) needs protobuf below 5, current TensorBoard above 6, so it needs a virtual environment
of its own; of the project's packages this program needs only NumPy and tqdm there.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen import from_poses
from data_gen.from_files import add_flags, reader_parser
from data_gen.poses.forms import VIDEOS
from utils.errors import UserError, run
from utils.files import ArrayArchive, atomic_write, check_regular, load_json, write_json

JOURNAL = ".from_video.json"  # in the folder of poses: videos without a person
VERSION = 1  # of the stored poses; with another one they are estimated again
LOST = "world landmarks: metres, upright for the camera, origin between the hips; the path through the room is lost"
_LANDMARKS = 33
POSES = """
--poses FOLDER  where to store the poses, one file per video; default: DATA_ROOT/NAME_poses
--only-poses  store the poses and stop; make no data set
"""


@dataclass(frozen=True)
class Video:
    """A video to read. poses: the file for its poses; name: with folders, without suffix; mark: text that identifies the
    video, stored with its poses; frames, fps: from its header."""

    path: Path
    poses: Path
    name: str
    mark: str
    frames: int
    fps: float


OWN_ENVIRONMENT = (
    "make an environment for it: python3.11 -m venv .venv-video && .venv-video/bin/pip install -r "
    "requirements-video.txt, then run this command with .venv-video/bin/python"
)


def _packages():
    """(cv2, MediaPipe's pose module); UserError that says how to install them."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # otherwise MediaPipe logs lines for every video
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import cv2
        import google.protobuf
        import mediapipe
    except ImportError as error:
        raise UserError(f"videos need MediaPipe ({error}); {OWN_ENVIRONMENT}") from None
    version = google.protobuf.__version__
    if int(version.split(".")[0]) >= 5:  # MediaPipe would load, and fail at the first frame
        raise UserError(f"MediaPipe needs protobuf below 5, found {version} (TensorBoard needs it); {OWN_ENVIRONMENT}")
    if not hasattr(mediapipe, "solutions"):
        raise UserError(
            f"MediaPipe {mediapipe.__version__} has no pose model, expected 0.10.14 to 0.10.21; {OWN_ENVIRONMENT}"
        )
    return cv2, mediapipe.solutions.pose


@contextmanager
def _opened(cv2, path: Path):
    capture = cv2.VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()


def _look(cv2, path: Path, root: Path, folder: Path) -> Video:
    """Reads the header and the first frame of a video; UserError when it cannot be read."""
    size = check_regular(path)
    if not size:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    with _opened(cv2, path) as capture:
        read, _ = capture.read() if capture.isOpened() else (False, None)
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    if not read:
        raise UserError(
            f"{path}: no frame of this video can be read; is it complete, and in a format that OpenCV reads?"
        )
    inside = path.relative_to(root)
    rate = float(fps) if np.isfinite(fps) and 1 <= fps <= 1000 else 0.0
    mark = f"{path.name}, {size} bytes, version {VERSION}"
    poses = folder / inside.with_name(f"{path.name}.npz")  # a.mp4 and a.avi are two clips
    return Video(path, poses, inside.with_suffix("").as_posix(), mark, max(0, int(frames)), rate)


def find_videos(cv2, source, folder: Path, skip_bad: bool) -> tuple[list[Video], list[str]]:
    """(videos in a folder and its subfolders, or the one file; for each unreadable one the reason).

    UserError when there is none, or when one cannot be read and skip_bad is False."""
    root = Path(source)
    if not root.exists():
        raise UserError(f"{root}: there is no such file or folder")
    paths = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEOS)
    paths = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    if not paths:
        raise UserError(f"{root}: holds no video ({', '.join(VIDEOS)})")
    videos, bad = [], []
    for path in paths:
        try:
            videos.append(_look(cv2, path, root if root.is_dir() else root.parent, folder))
        except UserError as error:
            bad.append(str(error))
    if bad and not skip_bad:
        why = "videos cannot be read; --on-bad skip leaves them out"
        raise UserError(f"{len(bad)} of {len(paths)} {why}: {from_poses.first_of(bad)}")
    if not videos:
        raise UserError(f"{root}: none of its {len(paths)} videos can be read; the first: {bad[0]}")
    return videos, bad


def frames_of(cv2, video: Video) -> Iterator[np.ndarray]:
    """Yields the frames of a video, RGB (height, width, 3) uint8."""
    with _opened(cv2, video.path) as capture:
        while True:
            read, picture = capture.read()
            if not read:
                return
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def estimate(pictures, pose, seen=lambda: None) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """(world landmarks (T, 33, 3) in metres, visibility (T, 33), (width, height)); NaN and 0 in frames without a person.

    pose: MediaPipe's pose module; seen: called after each frame."""
    points, scores, size = [], [], (0, 0)
    with pose.Pose(static_image_mode=False, model_complexity=1) as estimator:  # the model that is part of the wheel
        for picture in pictures:
            size = picture.shape[1], picture.shape[0]
            found = estimator.process(picture).pose_world_landmarks
            if found is None:
                points.append(np.full((_LANDMARKS, 3), np.nan))
                scores.append(np.zeros(_LANDMARKS))
            else:
                points.append(np.array([[p.x, p.y, p.z] for p in found.landmark]))
                scores.append(np.array([p.visibility for p in found.landmark]))
            seen()
    return np.array(points).reshape(-1, _LANDMARKS, 3), np.array(scores).reshape(-1, _LANDMARKS), size


def write_poses(video: Video, points: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> None:
    """Writes the poses of a video to a file that data_gen.poses.arrays reads."""
    video.poses.parent.mkdir(parents=True, exist_ok=True)
    about = {"layout": "mediapipe_33", "units": "metres", "up": "-y", "video": video.mark}
    rate = {"fps": np.float64(video.fps)} if video.fps else {}
    arrays = {"keypoints": points.astype(np.float32), "scores": scores.astype(np.float32), "size": np.array(size)}
    with atomic_write(video.poses) as file:
        np.savez(file, **arrays, **rate, **{key: np.str_(value) for key, value in about.items()})


def _is_done(video: Video) -> bool:
    """Whether the poses of this video are stored already."""
    try:
        with ArrayArchive(video.poses) as kept:
            return str(kept.read("video")) == video.mark
    except UserError:  # missing or incomplete
        return False


def convert(source, folder, skip_bad: bool = False) -> tuple[list[str], list[str]]:
    """Writes the poses of all videos in `source` to `folder`; returns (videos without a person, unreadable ones with why)."""
    cv2, pose = _packages()
    folder = Path(folder)
    videos, bad = find_videos(cv2, source, folder, skip_bad)
    folder.mkdir(parents=True, exist_ok=True)
    journal = load_json(folder / JOURNAL) if (folder / JOURNAL).is_file() else {}
    nobody: dict[str, str] = dict(journal) if isinstance(journal, dict) else {}
    left = [v for v in videos if not _is_done(v) and nobody.get(v.name) != v.mark]
    print(f"{len(videos)} videos, {len(videos) - len(left)} of them done before; {LOST}")
    with tqdm(total=sum(v.frames for v in left), unit="frame", desc="poses", disable=None) as bar:
        for video in left:
            bar.set_postfix_str(video.name[-30:], refresh=False)
            points, scores, size = estimate(frames_of(cv2, video), pose, bar.update)
            if np.isfinite(points).any():
                write_poses(video, points, scores, size)
            else:
                nobody[video.name] = video.mark
                write_json(folder / JOURNAL, nobody)
    return [v.name for v in videos if nobody.get(v.name) == v.mark], bad


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_video", __doc__)
    parser.add_argument("source", help="folder of videos (optionally one subfolder per class), or one video")
    add_flags(parser, table=POSES)
    from_poses.add_pose_flags(parser)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    folder = Path(args.poses or Path(args.data_root) / f"{args.name}_poses")
    nobody, bad = convert(args.source, folder, args.on_bad == "skip")
    for what, names in (("without a person", nobody), ("that cannot be read", bad)):
        if names:
            print(f"{len(names)} videos {what}: {from_poses.first_of(names, 20)}")
    print(f"poses: {folder}")
    if args.only_poses:
        return
    from_poses.convert(args, folder)


if __name__ == "__main__":
    run(main, sys.argv[1:])
