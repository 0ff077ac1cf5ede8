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

from data_gen.from_arrays import PROTOCOL, SPLIT_WORDS, protocols_of, read_list_rows
from data_gen.from_files import number_labels, texts_of_names
from data_gen.from_pyskl import find_protocols
from data_gen.protocols import ntu_name
from utils.errors import UserError
from utils.files import read_text

UNLABELLED = "unlabelled"
VAL_SHARE = 0.3
_NTU = "of NTU's names (A001 is class 0)"
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
class Known:
    """What is known of a clip before labels are made. folders: between the root and it; label, split, subject: as its file says;
    full: its name with folders; place, row: of a list of clips, for messages and by column, {} without."""

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


def _first_said(clips: list[Known], *ways) -> tuple[dict[str, str] | None, str]:
    """(name -> text, where from) of the first way that has a text for every clip, (None, "") without. ways: pairs of where from
    and a function of a clip that gives its text or None."""
    for where, way in ways:
        texts = {clip.name: way(clip) for clip in clips}
        if None not in texts.values():
            return texts, where
    return None, ""


def _by_pattern(clips: list[Known], pattern: str | None, flag: str) -> list:
    """What a pattern of the names says, as a way of `_first_said`; [] without a pattern."""
    found = texts_of_names([clip.name for clip in clips], pattern, flag) if pattern else {}
    return [(f"of the names, {pattern}", lambda clip: found[clip.name])] if pattern else []


# --- labels ---------------------------------------------------------------------------------------------------------


def number_classes(texts: dict[str, str], options: LabelOptions) -> tuple[dict[str, int], tuple[str, ...], list[str]]:
    """(name -> class number, class names, lines) of labels as text."""
    labels, classes = number_labels(texts, options.classes, options.labels_from)
    if not all(text.isdigit() for text in texts.values()):
        return labels, classes, []
    most = max(map(int, texts.values()))
    first = most - max(labels.values())
    if isinstance(classes, int):
        classes = tuple(f"class {k + first}" for k in range(classes))
    return labels, classes, [f"class numbers: from 1 in the files ({most} of them), made from 0"] * first


def find_labels(clips: list[Known], options: LabelOptions) -> tuple[dict[str, str] | None, str]:
    """(name -> label as text, or None; where they come from)."""
    if options.unlabelled:
        return None, "none, as --no-labels says"
    pattern = _by_pattern(clips, options.label_from_name, "--label-from-name")
    files = ("of the files", lambda clip: clip.label)
    texts, where = _first_said(clips, ("of the list", lambda clip: clip.row.get("label")), *pattern, files)
    if texts is None:
        some = [clip.name for clip in clips if clip.label is None]
        if len(some) < len(clips):
            other = next(clip.name for clip in clips if clip.label is not None)
            raise UserError(f"clip {some[0]} has no label, {other} has; give a list, or --no-labels")
        place = int(all(_split_folder(clip) for clip in clips))  # of the class among the folders
        texts, where = _first_said(
            clips,
            (_NTU, lambda clip: (parts := ntu_name(clip.name)) and str(parts.action)),
            ("folders", lambda clip: clip.folders[place] if len(clip.folders) > place else None),
        )
    if where == "folders":
        where = f"the names of the {len(set(texts.values()))} folders"
    return texts, where or "none: no list, no column, no folder a class"


# --- splits ---------------------------------------------------------------------------------------------------------


def _split_folder(clip: Known) -> str | None:
    """The split that a clip's first folder names."""
    return SPLIT_WORDS.get(clip.folders[0].lower()) if clip.folders else None


def _subject_of_name(clip: Known) -> str:
    ntu = ntu_name(clip.name)
    match = _SUBJECT.search("/".join((*clip.folders, clip.name)))
    if ntu is None and match is None:
        raise UserError(
            f"clip {clip.name}: nothing says its subject; give --subject-from-name with a pattern such as 's(\\d+)', or a "
            "column subject in a list"
        )
    return str(ntu.subject if ntu else int(match[1]))


def _by_subject(clips: list[Known], options: LabelOptions) -> tuple[dict[str, str], str]:
    """(name -> split, where from); UserError when not every clip says its subject."""
    subjects, where = _first_said(
        clips,
        *_by_pattern(clips, options.subject_from_name, "--subject-from-name"),
        ("of the list", lambda clip: clip.row.get("subject") or None),
        ("of the files", lambda clip: clip.subject or None),
        ("of the names", _subject_of_name),
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


def _matching(clip: Known, names) -> str | None:
    """The one of `names` (as a list writes clips: with folders and endings or without) that is this clip."""
    stem = clip.full.rsplit("/", 1)[-1]
    return next((way for way in (clip.full, clip.name, stem) if way in names), None)


def find_splits(clips, labels, own_splits, options: LabelOptions) -> tuple[dict[str, dict], str]:
    """(protocol -> {"train": names, "val": names}, where from)."""
    names = [clip.name for clip in clips]
    columns = [key for key in clips[0].row if key not in ("label", "subject")]
    if options.val_subjects or options.by == "subject":
        splits, where = _by_subject(clips, options)
    elif options.val_list:
        wanted = {_plain(line) for line in read_text(options.val_list).splitlines() if line.strip()}
        splits = {clip.name: "val" if _matching(clip, wanted) else "train" for clip in clips}
        where = f"the list {Path(options.val_list).name}"
        if "val" not in splits.values():
            raise UserError(f"--val-list {options.val_list}: names none of the clips, such as {names[0]}")
    elif columns:
        protocols = protocols_of({clip.name: (clip.place, clip.row) for clip in clips}, columns)
        return protocols, f"columns {', '.join(columns)} of the list"
    elif own_splits:
        known, pairs = set(names), find_protocols(own_splits)
        kept = {p: {s: [n for n in v if n in known] for s, v in parts.items()} for p, parts in pairs.items()}
        return kept, "the pickle's own"
    else:
        share = VAL_SHARE if options.val_share is None else options.val_share
        splits, where = None, ""
        if options.val_share is None:
            of_files = ("of the files", lambda clip: SPLIT_WORDS.get((clip.split or "").lower()))
            splits, where = _first_said(clips, ("the folders train and val", _split_folder), of_files)
        if splits is None and labels is None:
            splits, where = dict.fromkeys(names, "train"), "every clip is for training, since there are no labels"
        elif splits is None:
            splits = _drawn(labels, share, options.seed)
            where = f"{100 * share:g} % of each class for the test, drawn with seed {options.seed}"
            where += " (the default; --by subject keeps people apart)" * (options.val_share is None)
    parts = {split: [n for n in names if splits[n] == split] for split in ("train", "val")}
    return {PROTOCOL: {k: v for k, v in parts.items() if v}}, where


def _plain(text: str) -> str:
    """A clip as a list writes it -> its name without ./ and the ending of a file."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    known = ".npy .npz .json .jsonl .csv .tsv .txt .pkl .pickle .pose .mp4 .avi .skeleton".split()
    while path.suffix.lower() in known:
        path = path.with_suffix("")
    return path.as_posix()


def with_list(path, clips: list[Known]) -> tuple[list[Known], list[str]]:
    """(the clips that a list of clips names, with their rows; the names of the others)."""
    rows: dict[str, tuple[str, dict[str, str]]] = {}
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
        rows[name] = place, low
    ways = {clip.name: _matching(clip, rows) for clip in clips}
    named = [(clip, *rows[ways[clip.name]]) for clip in clips if ways[clip.name]]
    found = [replace(clip, place=place, row=row) for clip, place, row in named]
    if not found:
        raise UserError(
            f"{path}: names none of the clips; it has {next(iter(rows), 'nothing')}, the folder {clips[0].name}"
        )
    return found, [name for name, way in ways.items() if way is None]


def make_task(clips: list[Known], list_file, own_splits, options: LabelOptions) -> Task:
    """Classes and splits of all clips. list_file: a list of clips, or None; own_splits: of a pickle. UserError when what is
    asked for is not there."""
    notes = []
    if list_file is not None:
        clips, without = with_list(list_file, clips)
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
