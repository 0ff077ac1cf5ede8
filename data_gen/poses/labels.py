"""Classes and splits of clips, from whatever says them, and in words where it came from.

Labels, the first that there is: a list of clips (clips.csv, clips.json, --list), a pattern of the names, the files themselves,
a folder a class. Numbers become class numbers from 0; numbers that begin at 1 are said to be from 1 (--labels-from decides).
Without any, a data set has the one class `unlabelled` and no test clips: for pretraining and features.

Splits, the first that there is: a list, test subjects or a share of the subjects, a pickle's own, folders train and val, the
files themselves, else a share of each class, drawn by a seed. All but a pickle's are the protocol cross_subject, which
every program takes when none is named.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from data_gen.from_arrays import read_list_rows
from data_gen.from_files import number_labels, texts_of_names
from data_gen.from_pyskl import find_protocols
from data_gen.protocols import ntu_name
from utils.errors import UserError
from utils.files import read_text

UNLABELLED = "unlabelled"
PROTOCOL = "cross_subject"
VAL_SHARE = 0.3
_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}
_NTU = "of NTU's names (A001 is class 0)"
_SUBJECT = re.compile(r"(?:^|[_\-/. ])(?:subject|subj|sub|person|actor|s|p)[_\-]?(\d+)(?=$|[_\-/. ])", re.I)


@dataclass(frozen=True)
class LabelWishes:
    """What the user says about labels and splits; see the flags of data_gen.from_poses."""

    label_from_name: str | None = None
    labels_from: int | None = None
    classes: tuple[str, ...] | None = None
    unlabelled: bool = False
    subject_from_name: str | None = None
    val_subjects: tuple[str, ...] = ()
    val_list: str | None = None
    val_share: float | None = None
    by: str = "class"
    seed: int = 0


@dataclass(frozen=True)
class Known:
    """What is known of a clip before labels are made. folders: between the root and it; the rest: what its file says."""

    name: str
    folders: tuple[str, ...]
    label: str | None = None
    split: str | None = None
    subject: str | None = None


@dataclass
class Task:
    """labels: name -> class number; classes: names; protocols: protocol -> {"train": names, "val": names}, val left out when
    there is none; lines: where all that comes from; notes: what is unusual."""

    labels: dict[str, int]
    classes: tuple[str, ...]
    protocols: dict[str, dict[str, list[str]]]
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def short_names(names: list[str]) -> dict[str, str]:
    """Full name (folders and all) -> what the clip is called: its last part where that is enough to tell all clips apart, else
    all of it with _ for /."""
    last = {name: name.rsplit("/", 1)[-1] for name in names}
    counts = Counter(last.values())
    if len(counts) == len(names):
        return last
    joined = {name: name.replace("/", "_") for name in names}
    if len(set(joined.values())) < len(names):
        return {name: name for name in names}
    return joined


# --- labels ---------------------------------------------------------------------------------------------------------


def number_classes(texts: dict[str, str], wishes: LabelWishes) -> tuple[dict[str, int], tuple[str, ...], list[str]]:
    """(name -> class number, class names, lines) of labels as text."""
    labels, classes = number_labels(texts, wishes.classes, wishes.labels_from)
    if not all(text.isdigit() for text in texts.values()):
        return labels, classes, []
    most = max(map(int, texts.values()))
    first = most - max(labels.values())
    if isinstance(classes, int):
        classes = tuple(f"class {k + first}" for k in range(classes))
    return labels, classes, [f"class numbers: from 1 in the files ({most} of them), made from 0"] * first


def _folder_classes(clips: list[Known]) -> tuple[dict[str, str], bool] | None:
    """(name -> folder, whether train/val folders come before it), None when folders say no class."""
    if not all(clip.folders for clip in clips):
        return None
    splits = all(clip.folders[0].lower() in _SPLIT_WORDS for clip in clips)
    if splits and not all(len(clip.folders) > 1 for clip in clips):
        return None
    texts = {clip.name: clip.folders[1 if splits else 0] for clip in clips}
    return texts, splits


def find_labels(clips: list[Known], listed: dict[str, dict], wishes: LabelWishes) -> tuple[dict[str, str] | None, str]:
    """(name -> label as text, or None; where they come from)."""
    names = [clip.name for clip in clips]
    if wishes.unlabelled:
        return None, "none, as --no-labels says"
    if listed and all("label" in row for row in listed.values()):
        return {name: listed[name]["label"] for name in names}, "of the list"
    if wishes.label_from_name:
        pattern = wishes.label_from_name
        return texts_of_names(names, pattern, "--label-from-name"), f"of the names, {pattern}"
    if all(clip.label is not None for clip in clips):
        return {clip.name: clip.label for clip in clips}, "of the files"
    some = [clip.name for clip in clips if clip.label is None]
    if len(some) < len(clips):
        raise UserError(f"clip {some[0]} has no label, {clips[0].name} has; give a list, or --no-labels")
    ntu = {name: ntu_name(name) for name in names}
    if all(ntu.values()):
        return {name: str(ntu[name].action) for name in names}, _NTU
    folders = _folder_classes(clips)
    if folders is not None:
        count = len(set(folders[0].values()))
        return folders[0], f"the names of the {count} folders"
    return None, "none: no list, no column, no folder a class"


# --- splits ---------------------------------------------------------------------------------------------------------


def find_subjects(clips: list[Known], listed: dict[str, dict], wishes: LabelWishes) -> tuple[dict[str, str], str]:
    """(name -> subject, where from); UserError when not every clip says its subject."""
    if wishes.subject_from_name:
        pattern = wishes.subject_from_name
        return texts_of_names([c.name for c in clips], pattern, "--subject-from-name"), f"of the names, {pattern}"
    if listed and all(row.get("subject") for row in listed.values()):
        return {clip.name: listed[clip.name]["subject"] for clip in clips}, "of the list"
    if all(clip.subject for clip in clips):
        return {clip.name: clip.subject for clip in clips}, "of the files"
    found = {}
    for clip in clips:
        ntu = ntu_name(clip.name)
        match = _SUBJECT.search("/".join((*clip.folders, clip.name)))
        if ntu is None and match is None:
            raise UserError(
                f"clip {clip.name}: nothing says its subject; give --subject-from-name with a pattern such as 's(\\d+)', or a "
                "column subject in a list"
            )
        found[clip.name] = str(ntu.subject if ntu else int(match[1]))
    return found, "of the names"


def _by_subject(clips, listed, wishes: LabelWishes) -> tuple[dict[str, str], str]:
    subjects, where = find_subjects(clips, listed, wishes)
    every = sorted(set(subjects.values()), key=lambda s: (len(s), s))
    if wishes.val_subjects:
        number = {str(int(s)) if s.isdigit() else s: s for s in every}
        wanted = {number.get(str(int(s)) if s.isdigit() else s, s) for s in wishes.val_subjects}
        unknown = sorted(wanted - set(every))
        if unknown:
            raise UserError(
                f"--val-subjects {unknown[0]}: there is no such subject; there are {', '.join(every)[:200]}"
            )
    else:
        share = VAL_SHARE if wishes.val_share is None else wishes.val_share
        order = np.random.default_rng([wishes.seed, len(every)]).permutation(len(every))
        wanted = {every[i] for i in order[: max(1, round(share * len(every)))]}
    if wanted >= set(every):
        raise UserError(f"every subject ({', '.join(every)[:100]}) would be in the test; leave some for training")
    shown = ", ".join(s for s in every if s in wanted)
    splits = {name: "val" if subject in wanted else "train" for name, subject in subjects.items()}
    return splits, f"by subject ({where}); {len(wanted)} of {len(every)} subjects for the test: {shown[:200]}"


def _drawn(labels: dict[str, int], share: float, seed: int) -> dict[str, str]:
    """A share of each class for the test, at least one clip of a class of two; the same for the same names and seed."""
    splits = dict.fromkeys(labels, "train")
    for k in sorted(set(labels.values())):
        names = sorted(name for name, label in labels.items() if label == k)
        order = np.random.default_rng([seed, k]).permutation(len(names))
        count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
        splits.update({names[i]: "val" for i in order[:count]})
    return splits


def _matching(clip: Known, full: str, names) -> str | None:
    """The one of `names` (as a list writes clips: with folders and endings or without) that is this clip."""
    stem = full.rsplit("/", 1)[-1]
    return next((way for way in (full, clip.name, stem) if way in names), None)


def find_splits(clips, full, labels, listed, own_splits, wishes: LabelWishes) -> tuple[dict[str, dict], str]:
    """(protocol -> {"train": names, "val": names}, where from). full: name -> name with folders."""
    names = [clip.name for clip in clips]
    columns = [key for key in next(iter(listed.values()), {}) if key not in ("label", "subject")]
    if wishes.val_subjects or wishes.by == "subject":
        splits, where = _by_subject(clips, listed, wishes)
    elif wishes.val_list:
        wanted = {_plain(line) for line in read_text(wishes.val_list).splitlines() if line.strip()}
        splits = {c.name: "val" if _matching(c, full[c.name], wanted) else "train" for c in clips}
        where = f"the list {Path(wishes.val_list).name}"
        if "val" not in splits.values():
            raise UserError(f"--val-list {wishes.val_list}: names none of the clips, such as {names[0]}")
    elif columns:
        protocols = {PROTOCOL if key == "split" else key: _of_column(listed, key) for key in columns}
        return protocols, f"columns {', '.join(columns)} of the list"
    elif own_splits:
        known = set(names)
        pairs = find_protocols(own_splits)
        return {
            p: {s: [n for n in v if n in known] for s, v in parts.items()} for p, parts in pairs.items()
        }, "the pickle's own"
    elif wishes.val_share is None and all(c.folders and c.folders[0].lower() in _SPLIT_WORDS for c in clips):
        splits = {c.name: _SPLIT_WORDS[c.folders[0].lower()] for c in clips}
        where = "the folders train and val"
    elif wishes.val_share is None and all(c.split and c.split.lower() in _SPLIT_WORDS for c in clips):
        splits = {c.name: _SPLIT_WORDS[c.split.lower()] for c in clips}
        where = "of the files"
    elif labels is None:
        splits, where = dict.fromkeys(names, "train"), "every clip is for training, since there are no labels"
    else:
        share = VAL_SHARE if wishes.val_share is None else wishes.val_share
        splits = _drawn(labels, share, wishes.seed)
        where = f"{100 * share:g} % of each class for the test, drawn with seed {wishes.seed}" + (
            " (the default; --by subject keeps people apart)" if wishes.val_share is None else ""
        )
    parts = {split: [n for n in names if splits[n] == split] for split in ("train", "val")}
    return {PROTOCOL: {k: v for k, v in parts.items() if v}}, where


def _of_column(listed: dict[str, dict], key: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for name, row in listed.items():
        word = row[key].strip().lower()
        if word and word not in _SPLIT_WORDS:
            raise UserError(f"the list, clip {name}: {key} is {row[key]!r}; expected train, val or nothing")
        if word:
            parts[_SPLIT_WORDS[word]].append(name)
    return parts


def _plain(text: str) -> str:
    """A clip as a list writes it -> its name without ./ and the ending of a file."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    known = ".npy .npz .json .jsonl .csv .tsv .txt .pkl .pickle .pose .mp4 .avi .skeleton".split()
    while path.suffix.lower() in known:
        path = path.with_suffix("")
    return path.as_posix()


def read_listed(path, clips: list[Known], full: dict[str, str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """(clip name -> its row of a list of clips, without the name; clips that it does not name)."""
    rows: dict[str, dict[str, str]] = {}
    for place, row in read_list_rows(Path(path)):
        low = {key.strip().lower(): value.strip() for key, value in row.items()}
        key = next((k for k in ("name", "clip", "file", "filename", "video") if low.get(k)), None)
        if key is None:
            raise UserError(f"{place}: no name; expected columns name, label and perhaps split, subject")
        name = _plain(low.pop(key))
        if name in rows:
            raise UserError(f"{place}: clip {name} is listed twice")
        if "class" in low and "label" not in low:
            low["label"] = low.pop("class")
        if "label" in low and not low["label"]:
            raise UserError(f"{place}: no label of clip {name}")
        rows[name] = low
    found, without = {}, []
    for clip in clips:
        way = _matching(clip, full[clip.name], rows)
        if way is None:
            without.append(clip.name)
        else:
            found[clip.name] = rows[way]
    if not found:
        raise UserError(
            f"{path}: names none of the clips; it has {next(iter(rows), 'nothing')}, the folder {clips[0].name}"
        )
    return found, without


def make_task(clips: list[Known], full: dict[str, str], list_file, own_splits, wishes: LabelWishes) -> Task:
    """Classes and splits of all clips. full: name -> name with folders; list_file: a list of clips, or None; own_splits: of a
    pickle. UserError when what is asked for is not there."""
    notes = []
    listed: dict[str, dict] = {}
    if list_file is not None:
        listed, without = read_listed(list_file, clips, full)
        if without:
            notes.append(
                f"{len(without)} clips are not in {Path(list_file).name} and left out; the first: {without[0]}"
            )
            clips = [clip for clip in clips if clip.name in listed]
    texts, where = find_labels(clips, listed, wishes)
    lines = [f"labels: {where}"]
    if texts is None:
        labels, classes = None, (UNLABELLED,)
    else:
        if where == _NTU and wishes.labels_from is None:
            wishes = replace(wishes, labels_from=1)
        labels, classes, more = number_classes(texts, wishes)
        lines += more
    protocols, where = find_splits(clips, full, labels, listed, own_splits, wishes)
    lines.append(f"split: {where}")
    numbers = labels if labels is not None else {clip.name: 0 for clip in clips}
    for protocol, parts in protocols.items():
        trained = {numbers[name] for name in parts.get("train", ()) if name in numbers}
        missing = [classes[k] for k in range(len(classes)) if k not in trained]
        notes += [f"{protocol}: class {name!r} has no training clip" for name in missing]
    return Task(numbers, classes, protocols, lines, notes)
