"""The demo data set: people made by the program, so that everything can be tried without data, GPU or network.

Fifteen actions (two of them of two people) by sixteen subjects, twice each, seen by three cameras: 1440 clips of 44 to
128 frames at 30 Hz, on the Kinect's 25 joints, named like NTU's (setup 18, camera, subject, repetition, action) and split
like NTU's: cross_subject trains on subjects 1 2 4 5 8 9 13 14 15 16, cross_view on cameras 2 and 3.

    data_gen.demo_exact     arithmetic and chance with the same bits everywhere
    data_gen.demo_body      subjects, forward kinematics
    data_gen.demo_actions   which joint moves where, when
    data_gen.demo_scene     one or two people doing it, for a clip or through a video
    data_gen.demo_sensor    what a camera records of it
    data_gen.demo           names, splits, folders, raw files

`recorded_clip` is the same to the bit on every processor (coordinates are whole tenths of a millimetre); the prepared
arrays are those clips after the usual normalisation, equal to rounding. `<data root>/demo/untrimmed` holds videos of
five to eight actions with pauses between them, for detection.

    python -m data_gen.demo --data-root data
"""

import argparse
import functools
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.build import build_dataset
from data_gen.demo_exact import Chance
from data_gen.demo_scene import MAX_FRAMES, SUBJECTS, make_clip_scene, make_video_scene
from data_gen.demo_sensor import CAMERAS, see
from data_gen.make_raw import clip_frames, pku_label_text, pku_text, skeleton_text
from data_gen.protocols import NTU60_TRAIN_SUBJECTS, NTU_TRAIN_CAMERAS
from data_gen.raw_ntu import energy
from data_gen.untrimmed import write_untrimmed
from options.class_names import DEMO
from utils.arrays import SIDECAR, SPLITS, split_files
from utils.errors import UserError, run
from utils.files import atomic_write, load_json
from utils.skeleton import KINECT_V2

VERSION = 1  # of the generator: goes up when the same seed gives other clips
SETUP = 18
REPETITIONS = 2
PERSONS = 2
VIDEOS = 30
PAIR_EVERY = 4  # of the videos, every fourth has two people
VIEWS = {"L": 1, "M": 2, "R": 3}  # as PKU-MMD names its cameras
NTU_FOLDER = "nturgb+d_skeletons"
DECIMALS = 4  # of a coordinate in a raw file: the grid of 0.1 mm, exactly


@dataclass(frozen=True)
class Clip:
    """One clip: action 0.., subject 1.., camera 1..3, repetition 1.. ."""

    action: int
    subject: int
    camera: int
    repetition: int

    @property
    def name(self) -> str:
        return f"S{SETUP:03d}C{self.camera:03d}P{self.subject:03d}R{self.repetition:03d}A{self.action + 1:03d}"


def all_clips() -> dict[str, Clip]:
    """Name -> clip, sorted by name."""
    clips = [
        Clip(action, subject, camera, repetition)
        for action in range(len(DEMO))
        for subject in range(1, SUBJECTS + 1)
        for camera in CAMERAS
        for repetition in range(1, REPETITIONS + 1)
    ]
    return {clip.name: clip for clip in sorted(clips, key=lambda clip: clip.name)}


def protocols(clips: dict[str, Clip]) -> dict[str, dict[str, list[str]]]:
    """Protocol folder -> split -> names."""
    subject = {name: clip.subject in NTU60_TRAIN_SUBJECTS for name, clip in clips.items()}
    camera = {name: clip.camera in NTU_TRAIN_CAMERAS for name, clip in clips.items()}
    return {
        folder: {"train": [n for n in clips if trains[n]], "val": [n for n in clips if not trains[n]]}
        for folder, trains in (("xsub", subject), ("xview", camera))
    }


@functools.lru_cache(maxsize=512)  # a scene is seen by three cameras; 0.1 MB a person
def _scene(seed: int, action: int, subject: int, repetition: int) -> list[np.ndarray]:
    return make_clip_scene(seed, action, subject, repetition)


def recorded_clip(clip: Clip, seed: int = 0) -> np.ndarray:
    """What the camera recorded: (3, t, 25, 1 or 2) float32 metres in its coordinates, whole tenths of a millimetre.
    The same bits on every processor."""
    people = _scene(seed, clip.action, clip.subject, clip.repetition)
    return see(people, clip.camera, Chance(seed, "sensor", clip.name))


def _livelier_first(clip: np.ndarray) -> np.ndarray:
    """Persons by falling energy, the order in which readers of raw files give them."""
    order = np.argsort([-energy(clip[..., m].transpose(1, 2, 0).astype(np.float64)) for m in range(clip.shape[3])])
    return clip[..., order]


@dataclass(frozen=True)
class Loader:
    """name -> clip (3, t, 25, m) float32, for data_gen.build."""

    seed: int

    def __call__(self, name: str) -> np.ndarray:
        camera, subject, repetition, action = (int(name[i : i + 3]) for i in (5, 9, 13, 17))
        return _livelier_first(recorded_clip(Clip(action - 1, subject, camera, repetition), self.seed))


def video_names() -> list[str]:
    """Names of the untrimmed videos, like PKU-MMD's: number and view."""
    return [f"{number:04d}-{view}" for number in range(1, VIDEOS + 1) for view in VIEWS]


def _video_subject(number: int) -> int:
    return 1 + (number - 1) % SUBJECTS


def recorded_video(name: str, seed: int = 0) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """(frames (T, 3, 25, 2) float32 metres, absent persons zero; segments [(class, start, end)]) of a video, with the
    same bits on every processor."""
    number, camera = int(name[:4]), VIEWS[name[5]]
    people, segments = _video_scene(seed, number)
    seen = see(people, camera, Chance(seed, "sensor", name), lose_frames=False)
    frames = np.zeros((seen.shape[1], 3, KINECT_V2.joints, PERSONS), dtype=np.float32)
    frames[..., : seen.shape[3]] = seen.transpose(1, 0, 2, 3)
    return frames, segments


@functools.lru_cache(maxsize=2)
def _video_scene(seed: int, number: int):
    return make_video_scene(seed, number, _video_subject(number), number % PAIR_EVERY == 0)


def video_protocols() -> dict[str, dict[str, list[str]]]:
    """Protocol folder -> split -> video names, by the rules of the clips."""
    names = video_names()
    subject = {name: _video_subject(int(name[:4])) in NTU60_TRAIN_SUBJECTS for name in names}
    camera = {name: VIEWS[name[5]] in NTU_TRAIN_CAMERAS for name in names}
    return {
        folder: {"train": [n for n in names if trains[n]], "val": [n for n in names if not trains[n]]}
        for folder, trains in (("xsub", subject), ("xview", camera))
    }


def is_complete(folder, seed: int, files) -> bool:
    """Whether `folder` holds whole demo arrays of this seed and generator, so that nothing needs to be made."""
    folder = Path(folder)
    if not (folder / SIDECAR).is_file() or not all((folder / file).is_file() for file in files):
        return False
    try:
        sidecar = load_json(folder / SIDECAR)
    except UserError:
        return False
    return isinstance(sidecar, dict) and sidecar.get("demo") == {"generator": VERSION, "seed": seed}


def _make_folder(folder, flag: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{flag} {folder}: expected a folder, found a file on the way there") from None
    except FileNotFoundError:
        raise UserError(f"{flag} {folder}: this folder cannot be made; give another") from None


def make_demo(data_root, seed: int = 0, workers: int = 1) -> Path:
    """Makes `data_root`/demo/{xsub,xview,untrimmed}, or leaves them as they are when they are there, whole and of this
    seed; returns the folder. Folders appear only when whole. OSError when the disk refuses; UserError when it is full
    or another process is making them."""
    _make_folder(data_root, "--data-root")
    folder = Path(data_root) / "demo"
    details = {"demo": {"generator": VERSION, "seed": seed}}
    clips = all_clips()
    split_names = [path.name for split in SPLITS for path in split_files(folder, split)]
    if not all(is_complete(folder / protocol, seed, split_names) for protocol in protocols(clips)):
        build_dataset(
            folder,
            KINECT_V2,
            PERSONS,
            protocols(clips),
            {name: clip.action for name, clip in clips.items()},
            Loader(seed),
            source=f"demo generator {VERSION}, seed {seed}",
            frames=MAX_FRAMES,
            workers=workers,
            details=details,
        )
    if not is_complete(folder / "untrimmed", seed, ("frames.npy", "offsets.npy", "frame_label.npy", "videos.json")):
        write_untrimmed(
            folder / "untrimmed",
            ((name, *recorded_video(name, seed)) for name in video_names()),
            layout=KINECT_V2,
            persons=PERSONS,
            num_classes=len(DEMO),
            protocols=video_protocols(),
            source=f"demo generator {VERSION}, seed {seed}",
            details=details,
        )
    return folder


def checksum(names, seed: int = 0) -> int:
    """CRC-32 over the recorded clips of these names, as whole tenths of a millimetre."""
    clips, value = all_clips(), 0
    for name in names:
        tenths = np.rint(recorded_clip(clips[name], seed).astype(np.float64) * 10000.0).astype("<i4")
        value = zlib.crc32(tenths.tobytes(), value)
    return value


def _tidy(coordinates: np.ndarray) -> np.ndarray:
    """float64 that prints as the whole tenths of a millimetre which the float32 stand for."""
    return np.round(coordinates.astype(np.float64), DECIMALS)


def write_raw(folder, seed: int = 0) -> Path:
    """Writes the same clips and videos as raw files: `nturgb+d_skeletons/*.skeleton`, and `PKU_Skeleton_Renew/*.txt` with
    `Train_Label_PKU_final/*.txt` (lines class,start,end,confidence; classes from 1). 310 MB."""
    _make_folder(folder, "--raw")
    folder = Path(folder)
    ntu, pku, labels = (folder / name for name in (NTU_FOLDER, "PKU_Skeleton_Renew", "Train_Label_PKU_final"))
    for needed in (ntu, pku, labels):
        needed.mkdir(parents=True, exist_ok=True)
    for name, clip in all_clips().items():
        with atomic_write(ntu / f"{name}.skeleton", "w") as file:
            file.write(skeleton_text(clip_frames(_tidy(recorded_clip(clip, seed)))))
    for name in video_names():
        frames, segments = recorded_video(name, seed)
        with atomic_write(pku / f"{name}.txt", "w") as file:
            file.write(pku_text(_tidy(frames).transpose(0, 3, 2, 1)))
        with atomic_write(labels / f"{name}.txt", "w") as file:
            file.write(pku_label_text((number + 1, start, end, 2) for number, start, end in segments))
    return folder


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.demo",
        description="Makes the demo data set: 1440 clips of 15 procedural actions, and untrimmed videos for detection. "
        "What is already there is kept.",
    )
    parser.add_argument(
        "--data-root", default="data", help="folder of the data sets; the arrays go to its demo/ (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="whole number that all clips follow from; another one gives other people and performances of the same "
        "actions (default: %(default)s, which all published figures use)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes; the arrays do not depend on it (default: %(default)s)"
    )
    parser.add_argument(
        "--raw",
        metavar="FOLDER",
        help="also write the clips as NTU .skeleton files and the videos as PKU-MMD text files below this folder, to try "
        "the programs that read those (takes longer and more space than the arrays)",
    )
    return parser


def main(argv=None) -> None:
    args = make_parser().parse_args(argv)
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: expected 1 or more")
    folder = make_demo(args.data_root, args.seed, args.workers)
    print(f"demo data set, seed {args.seed}: {folder}")
    if args.raw:
        print(f"raw files: {write_raw(args.raw, args.seed)}")
        print(
            f"read them back: python -m data_gen.prepare_ntu --dataset ntu120 --protocols cross_subject --partial "
            f"--raw {Path(args.raw) / NTU_FOLDER} --data-root FOLDER"
        )


if __name__ == "__main__":
    run(main)
