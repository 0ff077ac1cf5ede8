"""UI-PRMD, the real data set that comes with the project: ten rehabilitation exercises by ten people, done right and wrong.

`data_gen/ui_prmd.xz` holds all 2,000 clips of a Kinect v2 (licence, source and citation: `data_gen/ui_prmd.md`). Two data
sets are made from it when a program first uses them:

    ui_prmd            the ten exercises
    ui_prmd_quality    twenty classes: each exercise, done correctly or incorrectly

cross_subject trains on the odd subjects. cross_quality (ui_prmd only) trains on correct and tests on incorrect executions.
`untrimmed` holds synthetic sessions for detection: exercises of one subject in sequence, with blended rest poses between
them.

    python -m data_gen.ui_prmd --data-root data                   # makes both data sets
    python -m data_gen.ui_prmd --pack ui_prmd_3danno.pkl          # makes the packed file from a pyskl pickle

Design: the packed file has 8 bytes for kind and version, then an lzma stream of, for N clips with F frames in total,
exercise, subject, repetition, correct (uint8, N each) and frames (uint16, N), then coordinates by joint and axis (19, 3, F)
in whole millimetres, as zigzag-coded differences to the clip's previous frame (to 0 in its first), all low bytes, then all
high bytes. Six of the 25 joints (hands, tips, thumbs) repeat the wrists and are not stored.
"""

import argparse
import errno
import functools
import hashlib
import lzma
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.build import Stored, build_dataset
from data_gen.from_files import add_flags, reader_parser
from data_gen.from_pyskl import check_keypoint, read_file
from options.datasets import DATASETS
from utils.arrays import SIDECAR, split_files
from utils.errors import UserError, run
from utils.files import atomic_write, load_json
from utils.locks import BeingWritten
from utils.machine import default_workers
from utils.names import SPLITS
from utils.skeleton import KINECT_V2
from utils.untrimmed import write_untrimmed

PACKED = Path(__file__).with_name("ui_prmd.xz")
MAGIC = b"UIPRMD01"  # the last two digits are the version of the format
NAMES = ("ui_prmd", "ui_prmd_quality")
VERSION = 1  # of the data sets made from the packed file; increased when their arrays or videos change
SOURCE = "UI-PRMD (Vakanski et al. 2018), packed in data_gen/ui_prmd.xz"

# joint -> the wrist that it repeats; the 19 joints that are stored
COPIES = {7: 6, 21: 6, 22: 6, 11: 10, 23: 10, 24: 10}
STORED = tuple(joint for joint in range(KINECT_V2.joints) if joint not in COPIES)

VIDEOS_PER_SUBJECT = 6
EXERCISES = (5, 8)  # range of exercises per video
PAUSE = (20, 60)  # range of frames between two exercises
STILL = 8  # frames at both ends of a clip in which people stand still; pauses play them forwards and backwards


@dataclass(frozen=True)
class Packed:
    """Content of the packed file. Per clip: exercise 0..9, subject 1..10, repetition 1..10, correct (bool), frames;
    millimetres (F, 19, 3) int16: the frames of all clips, in order, in camera space (y up, z away)."""

    exercise: np.ndarray
    subject: np.ndarray
    repetition: np.ndarray
    correct: np.ndarray
    frames: np.ndarray
    millimetres: np.ndarray

    @functools.cached_property
    def names(self) -> list[str]:
        """Clip names such as m01_s02_e03_inc: exercise, subject, repetition, correct or incorrect."""
        quality = np.where(self.correct, "cor", "inc")
        columns = zip(self.exercise + 1, self.subject, self.repetition, quality, strict=True)
        return [f"m{m:02d}_s{s:02d}_e{e:02d}_{q}" for m, s, e, q in columns]

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Clip name -> its index."""
        return {name: i for i, name in enumerate(self.names)}

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """(N + 1,) index of the first frame of each clip."""
        return np.concatenate([[0], np.cumsum(self.frames, dtype=np.int64)])

    def clip(self, name: str) -> np.ndarray:
        """The coordinates (3, T, 25, 1) of a clip, float32 metres."""
        number = self.index[name]
        stored = self.millimetres[self.offsets[number] : self.offsets[number + 1]]
        joints = np.empty((len(stored), KINECT_V2.joints, 3), dtype=np.float32)
        joints[:, STORED] = stored / np.float32(1000)
        joints[:, list(COPIES)] = joints[:, list(COPIES.values())]
        return joints.transpose(2, 0, 1)[..., None]


def _differences(millimetres: np.ndarray, frames: np.ndarray) -> np.ndarray:
    starts = np.concatenate([[0], np.cumsum(frames, dtype=np.int64)[:-1]])
    steps = np.diff(millimetres, axis=0, prepend=0)
    steps[starts] = millimetres[starts]
    return steps


def encode(packed: Packed) -> bytes:
    """The content of the packed file."""
    steps = _differences(packed.millimetres.astype(np.int32), packed.frames).transpose(1, 2, 0)
    zigzag = ((steps << 1) ^ (steps >> 31)).astype("<u2")
    columns = (packed.exercise, packed.subject, packed.repetition, packed.correct)
    content = b"".join(np.asarray(column, dtype=np.uint8).tobytes() for column in columns)
    content += packed.frames.astype("<u2").tobytes()
    content += (zigzag & 255).astype(np.uint8).tobytes() + (zigzag >> 8).astype(np.uint8).tobytes()
    count = len(packed.frames).to_bytes(4, "little")
    return MAGIC + lzma.compress(count + content, preset=9 | lzma.PRESET_EXTREME)


def decode(content: bytes) -> Packed:
    """The inverse of `encode`; ValueError when the bytes are damaged or of another version."""
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError(f"it begins with {content[:8]!r}, expected {MAGIC!r}")
    try:
        content = lzma.decompress(content[len(MAGIC) :], memlimit=2**28)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"damaged ({error})") from None
    number = int.from_bytes(content[:4], "little")
    columns = np.frombuffer(content, np.uint8, 4 * number, 4).reshape(4, number)
    frames = np.frombuffer(content, "<u2", number, 4 + 4 * number).astype(np.int64)
    total = int(frames.sum())
    planes = np.frombuffer(content, np.uint8, offset=4 + 6 * number).reshape(2, len(STORED), 3, total)
    zigzag = planes[0] | planes[1].astype(np.uint16) << 8
    steps = (zigzag >> 1).astype(np.int16) ^ -(zigzag & 1).astype(np.int16)
    # cumulative sums overflow 16 bits, but modulo 2**16 the sum within a clip is right: it is a coordinate, which fits
    sums = np.cumsum(steps, axis=2, dtype=np.int16)
    starts = np.concatenate([[0], np.cumsum(frames)[:-1]])
    before = np.zeros((len(STORED), 3, number), dtype=np.int16)
    before[..., 1:] = sums[..., starts[1:] - 1]
    sums -= np.repeat(before, frames, axis=2)
    return Packed(*columns[:3].astype(np.int64), columns[3] > 0, frames, sums.transpose(2, 0, 1))


@functools.lru_cache(maxsize=1)
def read_packed(path=PACKED) -> Packed:
    """The packed file, read once a process; UserError when it is missing, damaged or of another version."""
    again = "restore it: git checkout -- data_gen/ui_prmd.xz"
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: the file of packed UI-PRMD clips is missing; {again}") from None
    except ValueError as error:
        raise UserError(f"{path}: not the packed UI-PRMD clips of this version: {error}; {again}") from None


def fingerprint(packed: Packed) -> str:
    """A checksum of names and coordinates."""
    digest = hashlib.sha256("\n".join(packed.names).encode())
    digest.update(np.ascontiguousarray(packed.millimetres, dtype="<i2").tobytes())
    return digest.hexdigest()[:16]


def pack(pickle_file) -> Packed:
    """The clips of UI-PRMD in pyskl's pickle format (coordinates in metres); UserError when it holds anything else."""
    _, annotations = read_file(pickle_file)
    rows, coordinates = [], []
    for name, annotation in sorted(annotations.items()):
        keypoint = check_keypoint(name, annotation)
        numbers = name.replace("m", "").replace("s", "").replace("e", "").split("_")
        if len(numbers) != 4 or numbers[3] not in ("cor", "inc") or keypoint.shape[::2] != (1, KINECT_V2.joints):
            raise UserError(
                f"{pickle_file}: clip {name}: expected a name like m01_s02_e03_inc and keypoints (1, T, 25, 3)"
            )
        joints = keypoint[0]
        if any((joints[:, copy] != joints[:, wrist]).any() for copy, wrist in COPIES.items()):
            raise UserError(f"{pickle_file}: clip {name}: expected hands, tips and thumbs that repeat the wrists")
        rows.append((int(numbers[0]) - 1, int(numbers[1]), int(numbers[2]), numbers[3] == "cor", len(joints)))
        coordinates.append(np.rint(joints[:, STORED].astype(np.float64) * 1000).astype(np.int16))
    exercise, subject, repetition, correct, frames = (np.array(column) for column in zip(*rows, strict=True))
    return Packed(exercise, subject, repetition, correct, frames, np.concatenate(coordinates))


def labels_of(packed: Packed, dataset: str) -> dict[str, int]:
    """Clip name -> class number from 0 in `ui_prmd` or `ui_prmd_quality`."""
    numbers = packed.exercise if dataset == "ui_prmd" else 2 * packed.exercise + ~packed.correct
    return dict(zip(packed.names, numbers.tolist(), strict=True))


def protocols_of(packed: Packed, dataset: str, names) -> dict[str, dict[str, list[str]]]:
    """Protocol folder -> split -> the clips of `names` in it."""
    rules = {"xsub": packed.subject % 2 == 1, "xqual": packed.correct}
    return {
        folder: {
            "train": [name for name in names if rules[folder][packed.index[name]]],
            "val": [name for name in names if not rules[folder][packed.index[name]]],
        }
        for (folder,) in DATASETS[dataset].protocols.values()
    }


def load_clip(name: str) -> np.ndarray:
    """A clip (3, T, 25, 1), for data_gen.build (its processes read the packed file once each)."""
    return read_packed().clip(name)


def _standing(clip: np.ndarray, end: bool, count: int) -> np.ndarray:
    """(count, 25, 3) rest frames from a clip's end or beginning: its outermost frames, played forwards and backwards."""
    still = min(STILL, len(clip))
    way = np.arange(count) % max(1, 2 * (still - 1))
    inward = np.minimum(way, 2 * (still - 1) - way) if still > 1 else way * 0
    return clip[len(clip) - 1 - inward] if end else clip[inward[::-1]]


def make_video(clips: list[np.ndarray], pauses: list[int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Joins clips (T, 25, 3) of one person: (frames (T', 25, 3), [(start, end)] of each clip in it).

    pauses: len(clips) + 1 frame counts, before the first clip, between clips and after the last. Between two clips the
    rest pose of the first one's end is blended, with a smooth weight, into that of the second one's beginning."""
    parts, places, at = [_standing(clips[0], False, pauses[0])], [], pauses[0]
    for i, clip in enumerate(clips):
        parts.append(clip)
        places.append((at, at + len(clip)))
        count = pauses[i + 1]
        rest = _standing(clip, True, count)
        if i + 1 < len(clips):
            x = (np.arange(count, dtype=np.float32) + 0.5)[:, None, None] / count
            weight = x * x * (3 - 2 * x)
            rest = (1 - weight) * rest + weight * _standing(clips[i + 1], False, count)
        parts.append(rest)
        at += len(clip) + count
    return np.concatenate(parts).astype(np.float32), places


def videos_of(packed: Packed, dataset: str, seed: int = 0):
    """Yields (name, frames (T, 3, 25, 1), segments [(class, start, end)]) of the untrimmed videos; s03_v2 is the second of
    subject 3. A video is a function of the seed, the subject and its number."""
    labels = labels_of(packed, dataset)
    for subject in np.unique(packed.subject).tolist():
        own = [name for name in packed.names if packed.subject[packed.index[name]] == subject]
        for number in range(1, VIDEOS_PER_SUBJECT + 1):
            rng = np.random.default_rng([seed, subject, number])
            count = min(int(rng.integers(EXERCISES[0], EXERCISES[1] + 1)), len(own))
            chosen = [own[i] for i in rng.choice(len(own), count, replace=False)]
            pauses = rng.integers(PAUSE[0], PAUSE[1] + 1, count + 1).tolist()
            clips = [packed.clip(name)[..., 0].transpose(1, 2, 0) for name in chosen]
            frames, places = make_video(clips, pauses)
            segments = [(labels[name], *place) for name, place in zip(chosen, places, strict=True)]
            yield f"s{subject:02d}_v{number}", frames.transpose(0, 2, 1)[..., None], segments


def _video_protocols(names: list[str]) -> dict[str, dict[str, list[str]]]:
    train = [name for name in names if int(name[1:3]) % 2]
    return {"xsub": {"train": train, "val": [name for name in names if name not in train]}}


def _made_by(folder: Path, files, expected: dict) -> str:
    """The state of a folder: "whole", "missing" (also in part), or "other" (not made by this module)."""
    if not folder.is_dir():
        return "missing"
    if not (folder / SIDECAR).is_file():
        return "other"
    sidecar = load_json(folder / SIDECAR)
    made = sidecar.get("ui_prmd") if isinstance(sidecar, dict) else None
    if made is None:
        return "other"
    return "whole" if made == expected and all((folder / file).is_file() for file in files) else "missing"


def make(data_root, dataset: str, needed=(), names=None, workers: int | None = None) -> Path:
    """Makes those of `data_root`/`dataset`/{xsub,xqual,untrimmed} that are missing or incomplete; returns the folder.

    needed: those that the caller will read; names: make only these clips, and no videos (for tests). A folder appears only
    when it is complete; if another process is making the same, this one waits. A folder that was made in another way is
    used unchanged, and a line says so. UserError when such a folder lacks what is needed, or the packed file or the data
    root cannot be used."""
    folder = Path(data_root) / dataset
    expected = {"version": VERSION, "clips": "all" if names is None else len(names)}
    files = [path.name for split in SPLITS for path in split_files("", split)]
    wanted = {sub: files for (sub,) in DATASETS[dataset].protocols.values()}
    if names is None:
        wanted["untrimmed"] = ["frames.npy", "offsets.npy", "frame_label.npy", "videos.json"]
    waiting = False
    while True:
        states = {sub: _made_by(folder / sub, needed, expected) for sub, needed in wanted.items()}
        if "other" in states.values():
            _use_as_it_is(folder, states, needed)
            return folder
        if "missing" not in states.values():
            return folder
        try:
            _build(folder, dataset, [sub for sub in states if states[sub] == "missing"], names, expected, workers)
        except BeingWritten:  # wait until the other process has made it or has ended
            if not waiting:
                print(f"{folder}: another process is preparing it; waiting", file=sys.stderr)
                waiting = True
            time.sleep(0.2)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise UserError(
                f"--data-root {data_root}: cannot be written ({error.strerror}), and {dataset} has not been made there "
                "yet; give a --data-root that you may write to"
            ) from None


def _use_as_it_is(folder: Path, states: dict[str, str], needed) -> None:
    lacks = [sub for sub in needed if states.get(sub) == "missing"]
    if lacks:
        raise UserError(
            f"{folder}: was prepared in another way and has no {lacks[0]}; move this folder away, so that it is made again "
            "completely"
        )
    print(f"{folder}: was prepared in another way; it is used unchanged", file=sys.stderr)


def _build(folder: Path, dataset: str, missing: list[str], names, expected: dict, workers: int | None) -> None:
    packed = read_packed()
    row = DATASETS[dataset]
    print(f"{folder}: making it from the 2,000 clips of UI-PRMD that come with the program", file=sys.stderr)
    details = {"ui_prmd": expected}
    protocols = protocols_of(packed, dataset, packed.names if names is None else sorted(names))
    protocols = {sub: splits for sub, splits in protocols.items() if sub in missing}
    if protocols:
        workers = min(workers or default_workers(), 1 if names is not None else 8)
        stored, labels = Stored(KINECT_V2, row.persons, int(packed.frames.max())), labels_of(packed, dataset)
        build_dataset(folder, stored, protocols, labels, load_clip, source=SOURCE, workers=workers, details=details)
    if "untrimmed" in missing:
        write_untrimmed(
            folder / "untrimmed",
            videos_of(packed, dataset),
            layout=KINECT_V2,
            persons=row.persons,
            num_classes=row.num_classes,
            protocols=_video_protocols,
            source=SOURCE,
            details=details,
        )


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("ui_prmd", __doc__)
    parser.add_argument("names", nargs="*", metavar="DATASET", help=f"which to make: {', '.join(NAMES)}; default: both")
    pack = f"--pack PICKLE  write {PACKED.name} from this pyskl pickle instead of making data sets"
    add_flags(parser, "--data-root", "--workers", table=pack)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    if args.pack:
        packed = pack(args.pack)
        with atomic_write(PACKED) as file:
            file.write(encode(packed))
        print(f"{PACKED}: {len(packed.names)} clips, {PACKED.stat().st_size} bytes, fingerprint {fingerprint(packed)}")
        return
    for name in args.names or NAMES:
        if name not in NAMES:
            raise UserError(f"data set {name!r}: expected {' or '.join(NAMES)}")
        print(f"ready: {make(args.data_root, name, workers=args.workers)}")


if __name__ == "__main__":
    run(main, sys.argv[1:])
