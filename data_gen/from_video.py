"""Videos to a data set: `python -m data_gen.from_video my_videos --name mine` (mp4, avi, mov, mkv, webm, ...).

MediaPipe finds one person a frame; its 33 world landmarks are kept in a file for each video, which `data_gen.from_poses` (and
`tools.extract_features --input`) read like any other poses. Its flags are taken here, too: labels are the folders' names etc.

World landmarks are metres, upright in the camera's frame, with the origin between the hips: how a body moves is kept, where it
walks in the room is lost. MediaPipe sees one person; for several take another estimator, and data_gen.from_poses.

A stopped conversion goes on where it was: a video whose poses are there is not read again. Videos that no person is seen in are
listed. MediaPipe (requirements-video.txt) needs a protobuf below 5 and a current TensorBoard one above 6, so that it gets an
environment of its own; this program needs nothing else of the project's packages than NumPy and tqdm.
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
from data_gen.from_files import reader_parser
from data_gen.poses.forms import VIDEOS
from utils.errors import UserError, run
from utils.files import ArrayArchive, atomic_write, check_regular, load_json, write_json

JOURNAL = ".from_video.json"  # in the folder of poses: videos without a person
VERSION = 1  # of what is kept; another one makes the poses anew
LOST = (
    "world landmarks: metres, upright for the camera, origin between the hips; where a person walks in the room is lost"
)
_LANDMARKS = 33


@dataclass(frozen=True)
class Video:
    """path: of the video; poses: the file that its poses go to; name: with folders, without ending; mark: what tells
    whether kept poses are of this very file; frames, fps: as its header says."""

    path: Path
    poses: Path
    name: str
    mark: str
    frames: int
    fps: float


OWN_ENVIRONMENT = (
    "an environment of its own will do: python3.11 -m venv .venv-video && .venv-video/bin/pip install -r "
    "requirements-video.txt, and then this command with .venv-video/bin/python"
)


def _packages():
    """(cv2, MediaPipe's pose module); UserError that says how to install them."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # else every video writes lines of its graph
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import cv2
        import google.protobuf
        import mediapipe
    except ImportError as error:
        raise UserError(f"videos need MediaPipe ({error}); {OWN_ENVIRONMENT}") from None
    version = google.protobuf.__version__
    if int(version.split(".")[0]) >= 5:  # its graphs are read without an error, and fail at the first frame
        raise UserError(f"MediaPipe needs a protobuf below 5, TensorBoard has brought {version}; {OWN_ENVIRONMENT}")
    if not hasattr(mediapipe, "solutions"):
        raise UserError(
            f"MediaPipe {mediapipe.__version__} brings no pose model, 0.10.14 to 0.10.21 do; {OWN_ENVIRONMENT}"
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
    """What a video's header says; UserError when it cannot be read."""
    size = check_regular(path)
    if not size:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    with _opened(cv2, path) as capture:
        read, _ = capture.read() if capture.isOpened() else (False, None)
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    if not read:
        raise UserError(f"{path}: no frame of this video can be read; is it whole, and one that OpenCV can play?")
    inside = path.relative_to(root)
    rate = float(fps) if np.isfinite(fps) and 1 <= fps <= 1000 else 0.0
    mark = f"{path.name}, {size} bytes, version {VERSION}"
    poses = folder / inside.with_name(f"{path.name}.npz")  # a.mp4 and a.avi are two clips
    return Video(path, poses, inside.with_suffix("").as_posix(), mark, max(0, int(frames)), rate)


def find_videos(cv2, source, folder: Path, skip_bad: bool) -> tuple[list[Video], list[str]]:
    """(videos of a folder and of the folders in it, or one; reasons of those that cannot be read).

    UserError when there is none, or, unless skip_bad, when one cannot be read."""
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
    """RGB pictures (height, width, 3) uint8, one after the other."""
    with _opened(cv2, video.path) as capture:
        while True:
            read, picture = capture.read()
            if not read:
                return
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def estimate(pictures, pose, seen=lambda: None) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """World landmarks (T, 33, 3) in metres and visibility (T, 33), NaN and 0 in frames without a person; (width, height).

    pose: MediaPipe's pose module; seen: called after each frame."""
    points, scores, size = [], [], (0, 0)
    with pose.Pose(static_image_mode=False, model_complexity=1) as estimator:  # the wheel holds this model
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
    """The file of a video's poses, as data_gen.poses.arrays reads it."""
    video.poses.parent.mkdir(parents=True, exist_ok=True)
    about = {"layout": "mediapipe_33", "units": "metres", "up": "-y", "video": video.mark}
    rate = {"fps": np.float64(video.fps)} if video.fps else {}
    arrays = {"keypoints": points.astype(np.float32), "scores": scores.astype(np.float32), "size": np.array(size)}
    with atomic_write(video.poses) as file:
        np.savez(file, **arrays, **rate, **{key: np.str_(value) for key, value in about.items()})


def _is_done(video: Video) -> bool:
    """Whether the poses of this very video are there."""
    try:
        with ArrayArchive(video.poses) as kept:
            return str(kept.read("video")) == video.mark
    except UserError:  # not there, or not whole
        return False


def convert(source, folder, skip_bad: bool = False) -> tuple[list[str], list[str]]:
    """Writes the poses of all videos of `source` under `folder`; returns (videos without a person, those not readable)."""
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
    parser.add_argument("source", help="folder of videos (a folder a class, or not), or one video")
    text = "where poses are kept, one file a video; default: DATA_ROOT/NAME_poses"
    parser.add_argument("--poses", metavar="FOLDER", help=text)
    parser.add_argument("--only-poses", action="store_true", help="end there: keep the poses, make no data set")
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
