"""Classes and splits of clips, and from where they were taken.

Labels come from the first source that has them: a list of clips (clips.csv, clips.json, --list), a pattern of the clip
names, the files, the folder names (a folder per class). Numbers become class numbers from 0; if they begin at 1, a
warning says so (--labels-from decides). Without labels a data set has the single class `unlabelled` and no test clips: for
pretraining and feature extraction.

Splits come from the first of: flags for subjects, a list, the splits of a pickle, folders train and val, the files, else a
seeded random share of each class. Except those of a pickle they are the protocol cross_subject, the default of every
program.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from data_gen.from_arrays import PROTOCOL, SPLIT_WORDS, protocols_of, read_list_rows
from data_gen.from_files import number_labels, texts_of_names
from data_gen.from_pyskl import find_protocols
from data_gen.protocols import ntu_name
from utils.errors import UserError
from utils.files import read_text

UNLABELLED = "unlabelled"
VAL_SHARE = 0.3
_NTU = "from NTU's names (A001 is class 0)"
_SUBJECT = re.compile(r"(?:^|[_\-/. ])(?:subject|subj|sub|person|actor|s|p)[_\-]?(\d+)(?=$|[_\-/. ])", re.I)


@dataclass(frozen=True)
class LabelOptions:
    """What the user gives about labels and splits; see the flags of data_gen.from_poses."""

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
class ClipInfo:
    """What is known of a clip before classes are numbered. folders: folder names below the root; label, split, subject: from
    its file; full: its name with folders; place, row: its row {column: text} in a list of clips and where that is, for
    messages."""

    name: str
    folders: tuple[str, ...]
    label: str | None = None
    split: str | None = None
    subject: str | None = None
    full: str = ""
    place: str = ""
    row: dict[str, str] = field(default_factory=dict)


@dataclass
class Task:
    """Classes and splits. labels: name -> class number; classes: names; protocols: protocol -> {"train": names, "val": names},
    without val if there are no test clips; lines: where they come from; notes: warnings."""

    labels: dict[str, int]
    classes: tuple[str, ...]
    protocols: dict[str, dict[str, list[str]]]
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def short_names(names: list[str]) -> dict[str, str]:
    """Full name (with folders) -> name of the clip: the last part if that is unique for all clips, else all parts joined by
    _, else the full name."""
    last = {name: name.rsplit("/", 1)[-1] for name in names}
    counts = Counter(last.values())
    if len(counts) == len(names):
        return last
    joined = {name: name.replace("/", "_") for name in names}
    if len(set(joined.values())) < len(names):
        return {name: name for name in names}
    return joined


def _first_complete(clips: list[ClipInfo], *ways) -> tuple[dict[str, str] | None, str]:
    """(name -> text, source) of the first source that has a text for every clip, (None, "") without. ways: pairs (source in
    words, function of a clip that returns its text or None)."""
    for where, way in ways:
        texts = {clip.name: way(clip) for clip in clips}
        if None not in texts.values():
            return texts, where
    return None, ""


def _by_pattern(clips: list[ClipInfo], pattern: str | None, flag: str) -> list:
    """A pattern of the clip names as a source for `_first_complete`; [] without a pattern."""
    found = texts_of_names([clip.name for clip in clips], pattern, flag) if pattern else {}
    return [(f"from the names, {pattern}", lambda clip: found[clip.name])] if pattern else []


# --- labels ---------------------------------------------------------------------------------------------------------


def number_classes(texts: dict[str, str], options: LabelOptions) -> tuple[dict[str, int], tuple[str, ...], list[str]]:
    """(name -> class number, class names, lines to print) of labels as text."""
    labels, classes = number_labels(texts, options.classes, options.labels_from)
    if not all(text.isdigit() for text in texts.values()):
        return labels, classes, []
    most = max(map(int, texts.values()))
    first = most - max(labels.values())
    if isinstance(classes, int):
        classes = tuple(f"class {k + first}" for k in range(classes))
    return labels, classes, [f"class numbers: 1 to {most} in the files, stored as 0 to {most - 1}"] * first


def find_labels(clips: list[ClipInfo], options: LabelOptions) -> tuple[dict[str, str] | None, str]:
    """(name -> label as text, or None without labels; their source in words)."""
    if options.unlabelled:
        return None, "none, as --no-labels says"
    pattern = _by_pattern(clips, options.label_from_name, "--label-from-name")
    files = ("from the files", lambda clip: clip.label)
    texts, where = _first_complete(clips, ("from the list", lambda clip: clip.row.get("label")), *pattern, files)
    if texts is None:
        some = [clip.name for clip in clips if clip.label is None]
        if len(some) < len(clips):
            other = next(clip.name for clip in clips if clip.label is not None)
            raise UserError(f"clip {some[0]} has no label, but {other} has one; give a list, or --no-labels")
        place = int(all(_split_folder(clip) for clip in clips))  # index of the class among the folders
        texts, where = _first_complete(
            clips,
            (_NTU, lambda clip: (parts := ntu_name(clip.name)) and str(parts.action)),
            ("folders", lambda clip: clip.folders[place] if len(clip.folders) > place else None),
        )
    if where == "folders":
        where = f"the names of the {len(set(texts.values()))} folders"
    return texts, where or "none: no list, no column, no class folders"


# --- splits ---------------------------------------------------------------------------------------------------------


def _split_folder(clip: ClipInfo) -> str | None:
    """The split that a clip's first folder names."""
    return SPLIT_WORDS.get(clip.folders[0].lower()) if clip.folders else None


def _subject_of_name(clip: ClipInfo) -> str:
    ntu = ntu_name(clip.name)
    match = _SUBJECT.search("/".join((*clip.folders, clip.name)))
    if ntu is None and match is None:
        raise UserError(
            f"clip {clip.name}: its subject is not known; give --subject-from-name with a pattern such as 's(\\d+)', or a "
            "list with a column subject"
        )
    return str(ntu.subject if ntu else int(match[1]))


def _by_subject(clips: list[ClipInfo], options: LabelOptions) -> tuple[dict[str, str], str]:
    """(name -> split, source in words); UserError when the subject of a clip is not known."""
    subjects, where = _first_complete(
        clips,
        *_by_pattern(clips, options.subject_from_name, "--subject-from-name"),
        ("from the list", lambda clip: clip.row.get("subject") or None),
        ("from the files", lambda clip: clip.subject or None),
        ("from the names", _subject_of_name),
    )
    every = sorted(set(subjects.values()), key=lambda s: (len(s), s))
    if options.val_subjects:
        number = {str(int(s)) if s.isdigit() else s: s for s in every}
        wanted = {number.get(str(int(s)) if s.isdigit() else s, s) for s in options.val_subjects}
        unknown = sorted(wanted - set(every))
        if unknown:
            raise UserError(
                f"--val-subjects {unknown[0]}: there is no such subject; there are {', '.join(every)[:200]}"
            )
    else:
        share = VAL_SHARE if options.val_share is None else options.val_share
        order = np.random.default_rng([options.seed, len(every)]).permutation(len(every))
        wanted = {every[i] for i in order[: max(1, round(share * len(every)))]}
    if wanted >= set(every):
        raise UserError(f"every subject ({', '.join(every)[:100]}) would be a test subject; leave some for training")
    shown = ", ".join(s for s in every if s in wanted)
    splits = {name: "val" if subject in wanted else "train" for name, subject in subjects.items()}
    return splits, f"by subject ({where}); {len(wanted)} of {len(every)} subjects for the test: {shown[:200]}"


def _sample_split(labels: dict[str, int], share: float, seed: int) -> dict[str, str]:
    """Samples a share of each class for the test, at least one clip of a class with two; a function of names and seed."""
    splits = dict.fromkeys(labels, "train")
    for k in sorted(set(labels.values())):
        names = sorted(name for name, label in labels.items() if label == k)
        order = np.random.default_rng([seed, k]).permutation(len(names))
        count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
        splits.update({names[i]: "val" for i in order[:count]})
    return splits


def _matching(clip: ClipInfo, names) -> str | None:
    """The one of `names` (from a list, with or without folders) that is this clip, or None."""
    stem = clip.full.rsplit("/", 1)[-1]
    return next((way for way in (clip.full, clip.name, stem) if way in names), None)


def find_splits(clips, labels, own_splits, options: LabelOptions) -> tuple[dict[str, dict], str]:
    """(protocol -> {"train": names, "val": names}, source in words)."""
    names = [clip.name for clip in clips]
    columns = [key for key in clips[0].row if key not in ("label", "subject")]
    if options.val_subjects or options.by == "subject":
        splits, where = _by_subject(clips, options)
    elif options.subject_from_name is not None:
        raise UserError(
            f"--subject-from-name {options.subject_from_name}: subjects are only read to split by them; give --by subject, "
            "too, or leave it out"
        )
    elif options.val_list:
        wanted = {_plain(line) for line in read_text(options.val_list).splitlines() if line.strip()}
        splits = {clip.name: "val" if _matching(clip, wanted) else "train" for clip in clips}
        where = f"the list {Path(options.val_list).name}"
        if "val" not in splits.values():
            raise UserError(
                f"--val-list {options.val_list}: names none of the clips; expected names such as {names[0]}"
            )
    elif columns:
        protocols = protocols_of({clip.name: (clip.place, clip.row) for clip in clips}, columns)
        return protocols, f"columns {', '.join(columns)} of the list"
    elif own_splits:
        known, pairs = set(names), find_protocols(own_splits)
        kept = {p: {s: [n for n in v if n in known] for s, v in parts.items()} for p, parts in pairs.items()}
        return kept, "from the pickle"
    else:
        share = VAL_SHARE if options.val_share is None else options.val_share
        splits, where = None, ""
        if options.val_share is None:
            of_files = ("from the files", lambda clip: SPLIT_WORDS.get((clip.split or "").lower()))
            splits, where = _first_complete(clips, ("the folders train and val", _split_folder), of_files)
        if splits is None and labels is None:
            splits, where = dict.fromkeys(names, "train"), "every clip is for training, since there are no labels"
        elif splits is None:
            splits = _sample_split(labels, share, options.seed)
            where = f"{100 * share:g} % of each class for the test, sampled with seed {options.seed}"
            where += " (the default; --by subject keeps people apart)" * (options.val_share is None)
    parts = {split: [n for n in names if splits[n] == split] for split in ("train", "val")}
    return {PROTOCOL: {k: v for k, v in parts.items() if v}}, where


def _plain(text: str) -> str:
    """The name of a clip in a list, without ./ and the suffix of a file."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    known = ".npy .npz .json .jsonl .csv .tsv .txt .pkl .pickle .pose .mp4 .avi .skeleton".split()
    while path.suffix.lower() in known:
        path = path.with_suffix("")
    return path.as_posix()


def listed_clips(path, clips: list[ClipInfo]) -> tuple[list[ClipInfo], list[str]]:
    """(the clips that are in a list, with their rows; the names of the others)."""
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    for place, row in read_list_rows(Path(path)):
        low = {key.strip().lower(): value.strip() for key, value in row.items()}
        key = next((k for k in ("name", "clip", "file", "filename", "video") if low.get(k)), None)
        if key is None:
            raise UserError(f"{place}: no name; expected columns name, label and optionally split, subject")
        name = _plain(low.pop(key))
        if name in rows:
            raise UserError(f"{place}: clip {name} is listed twice")
        if "class" in low and "label" not in low:
            low["label"] = low.pop("class")
        if "label" in low and not low["label"]:
            raise UserError(f"{place}: clip {name} has no label")
        rows[name] = place, low
    ways = {clip.name: _matching(clip, rows) for clip in clips}
    named = [(clip, *rows[ways[clip.name]]) for clip in clips if ways[clip.name]]
    found = [replace(clip, place=place, row=row) for clip, place, row in named]
    if not found:
        raise UserError(
            f"{path}: names none of the clips; it has {next(iter(rows), 'no names')}, but the folder has {clips[0].name}"
        )
    return found, [name for name, way in ways.items() if way is None]


def make_task(clips: list[ClipInfo], list_file, own_splits, options: LabelOptions) -> Task:
    """Classes and splits of all clips. list_file: a list of clips, or None; own_splits: the splits of a pickle, {} without.
    UserError when labels or splits that the options ask for are missing."""
    notes = []
    if list_file is not None:
        clips, without = listed_clips(list_file, clips)
        if without:
            notes.append(
                f"{len(without)} clips are not in {Path(list_file).name} and left out; the first: {without[0]}"
            )
    texts, where = find_labels(clips, options)
    lines = [f"labels: {where}"]
    if texts is None:
        labels, classes = None, (UNLABELLED,)
    else:
        if where == _NTU and options.labels_from is None:
            options = replace(options, labels_from=1)
        labels, classes, more = number_classes(texts, options)
        lines += more
    protocols, where = find_splits(clips, labels, own_splits, options)
    lines.append(f"split: {where}")
    numbers = labels if labels is not None else {clip.name: 0 for clip in clips}
    for protocol, parts in protocols.items():
        trained = {numbers[name] for name in parts.get("train", ()) if name in numbers}
        missing = [classes[k] for k in range(len(classes)) if k not in trained]
        notes += [f"{protocol}: class {name!r} has no training clip" for name in missing]
    return Task(numbers, classes, protocols, lines, notes)
