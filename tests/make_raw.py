"""Valid raw files of every kind that data_gen reads, small.

The people in them are those of UI-PRMD (data_gen.ui_prmd) under class names that are not theirs, so nothing can be learnt
from the labels. What they have is every oddity of the real files: frames with 0, 1, 2 and 5 bodies, ids that come and go, a
recording without anybody, clips of more than 300 frames, impossible rows in label files. `skeleton_text`, `pku_text` and
`pku_label_text` write given motion, too.

All chance comes from counter-based bits: the same seed gives the same files.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from data_gen.ui_prmd import read_packed
from utils.files import atomic_write, dump_pickle

FIRST_ID = 72057594037931101  # Kinect's ids have 17 digits: more than a float can tell apart


def uniform(seed: int, place: int, shape) -> np.ndarray:
    """Numbers in [0, 1), float64, from the stream `place` of `seed`; the same on every machine."""
    bits = np.random.Philox(key=np.array([seed, place], dtype=np.uint64)).random_raw(int(np.prod(shape)))
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)


def person(seed: int, place: int, length: int) -> np.ndarray:
    """A real person, (T, 25, 3) float32 in metres, camera space: a clip of UI-PRMD chosen by (seed, place), played to and
    fro until it has `length` frames, and moved up to 0.75 m to the side."""
    packed = read_packed()
    choice, side = uniform(seed, place, 2)
    clip = packed.clip(packed.names[int(choice * len(packed.names))])[..., 0].transpose(1, 2, 0)
    way = np.arange(length) % (2 * len(clip) - 2)
    joints = clip[np.minimum(way, 2 * len(clip) - 2 - way)]
    return joints + np.array([round(1.5 * side - 0.75, 3), 0, 0], dtype=np.float32)


def skeleton_text(frames) -> str:
    """The text of a `.skeleton` file. frames: per frame a list of bodies (id, joints (25, 3) in metres)."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for number, joints in bodies:
            lines += [f"{number} 0 1 1 1 1 0 0.02 -0.03 2", str(len(joints))]
            lines += [f"{x:.9g} {y:.9g} {z:.9g} 255.1 203.7 960.2 540.4 0.1 0.7 -0.1 0.7 2" for x, y, z in joints]
    return "\n".join(lines) + "\n"


def clip_frames(clip: np.ndarray, first_id: int = FIRST_ID) -> list:
    """A clip (3, T, 25, M) as the frames that `skeleton_text` writes; persons that are all zero are absent."""
    people = clip.transpose(1, 3, 2, 0)  # (T, M, V, C)
    return [[(first_id + m, joints) for m, joints in enumerate(frame) if joints.any()] for frame in people]


def oddity(seed: int, case: int) -> list:
    """Frames of a `.skeleton` recording with the oddity number `case` (7 of them, then again from the first)."""
    a, b, c, d, e = (person(seed, 5 * case + k, 320) for k in range(5))
    length = 12 + int(uniform(seed, 5000 + case, 1)[0] * 30)
    i = FIRST_ID + 100 * case
    kinds = [
        lambda: [[(i, a[t])] for t in range(length)],
        lambda: [[(i, a[t]), (i + 1, b[t])] for t in range(length)],
        lambda: [[] if t < 3 else [(i, a[t])] for t in range(length)],  # nobody at first
        # the second person comes and goes, and returns under another id, before the first in the file
        lambda: [
            [(i + 1, b[t]), (i, a[t])] if t % 9 < 3 else [(i, a[t])] if t % 9 < 6 else [(i + 2, b[t]), (i, a[t])]
            for t in range(length)
        ],
        lambda: [[(i + k, p[t]) for k, p in enumerate((a, b, c, d, e))][: (5, 1, 0, 2)[t % 4]] for t in range(length)],
        lambda: [[] for _ in range(length)],  # nobody at all
        lambda: [[(i, a[t])] for t in range(320)],  # longer than what is stored
    ]
    return kinds[case % len(kinds)]()


def ntu_names(clips: int, setups=(1, 2), classes: int = 60) -> list[str]:
    """Names SsssCcccPpppRrrrAaaa that spread over setups, cameras, subjects 1..40 (all protocols get both splits)."""
    return sorted(
        f"S{setups[k % len(setups)]:03d}C{k % 3 + 1:03d}P{k * 7 % 40 + 1:03d}R{k // 120 + 1:03d}A{k % classes + 1:03d}"
        for k in range(clips)
    )


def make_ntu(folder, names, seed: int = 1, archive: bool = False) -> Path:
    """Writes a `.skeleton` file for each name below `folder`; returns the folder, or the zip archive, that holds them.
    The oddities of `oddity` take turns."""
    folder = Path(folder)
    texts = {f"nturgb+d_skeletons/{name}.skeleton": skeleton_text(oddity(seed, k)) for k, name in enumerate(names)}
    if not archive:
        for name, text in texts.items():
            _write(folder / name, text.encode())
        return folder / "nturgb+d_skeletons"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in texts.items():
            file.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    _write(folder / "nturgbd_skeletons_s001_to_s017.zip", buffer.getvalue())
    return folder / "nturgbd_skeletons_s001_to_s017.zip"


def pku_text(frames: np.ndarray) -> str:
    """The text of a PKU-MMD skeleton file: frames (T, 2, 25, 3), zeros for an absent person, a line a frame."""
    return "".join(" ".join(f"{v:.9g}" for v in row) + "\n" for row in frames.reshape(len(frames), -1).tolist())


def pku_label_text(rows) -> str:
    """The text of a PKU-MMD label file: rows (class from 1, start, end, confidence)."""
    return "".join(",".join(str(int(v)) for v in row) + "\n" for row in rows)


def make_pku(folder, videos, part: int = 1, seed: int = 1, instances: int = 5, dirty: bool = True) -> Path:
    """Writes PKU-MMD videos (names like 0002-L, part II A01N01-L) in the folders of the given part; returns `folder`.

    dirty: the first video has a row with start after end and one that ends after the video; the second an instance of
    more than 300 frames and an all-zero one; all have some of confidence 0."""
    folder = Path(folder)
    skeletons, labels = (("PKU_Skeleton_Renew", "Train_Label_PKU_final"), ("skeleton", "label"))[part - 1]
    for k, video in enumerate(videos):
        long = 340 if dirty and k == 1 else 30
        length = 20 + long + instances * 50
        frames = np.zeros((length, 2, 25, 3), dtype=np.float32)
        frames[:, 0] = person(seed, 900 + 2 * k, length)
        frames[length // 2 :, 1] = person(seed, 901 + 2 * k, length)[length // 2 :]
        rows = [(1 + (k * 7 + j) % 51, 10 + long + 50 * j, 50 + long + 50 * j, j % 3) for j in range(instances)]
        if dirty and k == 0:
            rows += [(5, 60, 40, 2), (6, length - 10, length + 5, 1)]
        if dirty and k == 1:
            rows = [(9, 5, 5 + long - 10, 1), *rows]
            frames[rows[1][1] : rows[1][2]] = 0
        _write(folder / skeletons / f"{video}.txt", pku_text(frames).encode())
        _write(folder / labels / f"{video}.txt", pku_label_text(rows).encode())
    return folder


def make_pyskl(path, names, seed: int = 1, channels: int = 3, dtype=np.float16) -> Path:
    """Writes a pickle of the pyskl kind with splits xsub and xview; clips of 1 or 2 persons, some over 300 frames."""
    annotations = []
    for k, name in enumerate(names):
        length = 310 if k % 11 == 10 else 20 + k % 5
        keypoint = np.stack([person(seed, 2 * k + m, length) for m in range(1 + k % 2)])[..., :channels]
        label = int(name[-3:]) - 1
        annotations.append(
            {"frame_dir": name, "label": label, "keypoint": keypoint.astype(dtype), "total_frames": length}
        )
    split = {}
    for protocol, place, train in (
        ("xsub", slice(9, 12), {1, 2, 4, 5, 8, 9, 13, 14, 15}),
        ("xview", slice(5, 8), {2, 3}),
    ):
        split[f"{protocol}_train"] = [n for n in names if int(n[place]) in train]
        split[f"{protocol}_val"] = [n for n in names if int(n[place]) not in train]
    _write(Path(path), dump_pickle({"split": split, "annotations": annotations}))
    return Path(path)


def make_ctrgcn(
    path, train: int = 6, test: int = 4, seed: int = 1, classes: int = 60, repeat_person: bool = False
) -> Path:
    """Writes an npz of the CTR-GCN kind: x float32 (N, 300, 150) in M, V, C order, y one-hot float64.

    repeat_person: clips of one person hold it twice, as the files of the 120 classes do."""
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        x = np.zeros((count, 300, 2, 25, 3), dtype=np.float32)
        for k in range(count):
            length = 300 if k % 5 == 4 else 25 + k % 275
            x[k, :length, 0] = person(seed, 100 * len(arrays) + 2 * k, length)
            if k % 2:
                x[k, :length, 1] = person(seed, 100 * len(arrays) + 2 * k + 1, length)
            elif repeat_person:
                x[k, :length, 1] = x[k, :length, 0]
        arrays[f"x_{split}"] = x.reshape(count, 300, 150)
        arrays[f"y_{split}"] = np.eye(classes)[[k * 7 % classes for k in range(count)]]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    _write(Path(path), buffer.getvalue())
    return Path(path)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(content)
