"""The train and val splits of NTU RGB+D (60 and 120 classes) and PKU-MMD (parts I and II): clip names in, splits out.

Rules and subject numbers are those that the owners of the data published. After removing `ntu_missing` the counts are
those of the registry (options.datasets). Pitfalls, each covered by a test: the list of missing recordings of the 120
classes contains that of the 60; the split lists for PKU part I in circulation are copies of those of part II and match
no file of part I, so the published rule is used; views of part I are split like those of part II, which is unverified.
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

from options.datasets import DATASETS
from utils.errors import UserError
from utils.names import SPLITS

NTU60_TRAIN_SUBJECTS = frozenset({1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38})
NTU120_TRAIN_SUBJECTS = NTU60_TRAIN_SUBJECTS | {
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78),
    *(*range(80, 87), 89, *range(91, 96), 97, 98, 100, 103),
}
NTU_TRAIN_CAMERAS = frozenset({2, 3})

PKU1_VAL_VIDEOS = range(291, 335)
PKU2_VAL_SUBJECTS = frozenset({2, 3, 7})
PKU2_SUBJECTS = range(1, 14)
PKU_TRAIN_VIEWS = frozenset("MR")

_NTU_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
_PKU_NAMES = {
    "pku_v1": re.compile(r"(?P<number>\d{4})-(?P<view>[LMR])", re.ASCII),
    "pku_v2": re.compile(r"A\d{2}N(?P<number>\d{2})-(?P<view>[LMR])", re.ASCII),
}
# published numbers of (train, val) videos
PKU_VIDEO_COUNTS = {
    "pku_v1": {"cross_subject": (944, 132)},
    "pku_v2": {"cross_subject": (775, 234), "cross_view": (671, 338)},
}
PKU_EXAMPLES = {"pku_v1": "0002-L", "pku_v2": "A01N01-L"}


class NtuName(NamedTuple):
    """The numbers in a name SsssCcccPpppRrrrAaaa, all from 1."""

    setup: int
    camera: int
    subject: int
    repeat: int
    action: int


def ntu_name(name: str) -> NtuName | None:
    """The numbers in an NTU name, or None for another name."""
    match = _NTU_NAME.fullmatch(name)
    return NtuName(*map(int, match.groups())) if match else None


def in_ntu(dataset: str, parts: NtuName) -> bool:
    """Whether a recording belongs to ntu60 (setups 1-17, actions 1-60) or ntu120 (setups 1-32, actions 1-120)."""
    setups, actions = {"ntu60": (17, 60), "ntu120": (32, 120)}[dataset]
    return 1 <= parts.setup <= setups and 1 <= parts.action <= actions


def in_ntu_train(dataset: str, protocol: str, parts: NtuName) -> bool:
    """Whether a recording is for training in cross_subject, cross_view (60 classes) or cross_setup (120 classes)."""
    if protocol == "cross_subject":
        return parts.subject in (NTU60_TRAIN_SUBJECTS if dataset == "ntu60" else NTU120_TRAIN_SUBJECTS)
    if protocol == "cross_view":
        return parts.camera in NTU_TRAIN_CAMERAS
    return parts.setup % 2 == 0


def _split(dataset: str, names, protocols, trains) -> dict[str, dict[str, list[str]]]:
    """protocol -> {"train": names, "val": names}; protocols: some of the registry's, None for all; trains(protocol, name)."""
    splits = {protocol: {split: [] for split in SPLITS} for protocol in protocols or DATASETS[dataset].protocols}
    for protocol, lists in splits.items():
        for name in names:
            lists["train" if trains(protocol, name) else "val"].append(name)
    return splits


def ntu_protocols(dataset: str, names, protocols=None) -> dict[str, dict[str, list[str]]]:
    """protocol -> {"train": names, "val": names} of ntu60 or ntu120 for NTU names; protocols: some of them, None for all."""
    return _split(dataset, names, protocols, lambda p, name: in_ntu_train(dataset, p, ntu_name(name)))


def pku_protocols(dataset: str, videos, protocols=None) -> dict[str, dict[str, list[str]]]:
    """protocol -> {"train": videos, "val": videos} of pku_v1 or pku_v2; protocols: some of them, None for all."""
    return _split(dataset, videos, protocols, lambda p, video: pku_video_in_train(dataset, p, video))


def check_counts(dataset: str, splits: dict, published: dict, what: str, hint: str, fewer: int = 0) -> None:
    """UserError, ending with `hint`, when splits do not have the published sizes {protocol: (train, val)}. fewer: how many
    clips may be missing."""
    for protocol in (p for p in published if p in splits):
        found, expected = tuple(len(splits[protocol][split]) for split in SPLITS), published[protocol]
        if not all(e - fewer <= f <= e for f, e in zip(found, expected, strict=True)):
            raise UserError(
                f"{dataset} {protocol}: found {found[0]:,} train and {found[1]:,} val {what}, expected {expected[0]:,} and "
                f"{expected[1]:,}; {hint}"
            )


@functools.cache
def ntu_missing() -> frozenset[str]:
    """The 535 NTU recordings whose skeletons the owners list as missing or incomplete; 302 of them in the 60 classes."""
    return frozenset(Path(__file__).with_name("ntu_missing.txt").read_text().split())


def pku_video_in_train(dataset: str, protocol: str, video: str) -> bool:
    """Whether a video is for training. cross_subject: in part I all but videos 0291-0334, in part II all but subjects N02,
    N03, N07; cross_view (both parts): views M and R. UserError for a name that does not belong to the part."""
    match = _PKU_NAMES[dataset].fullmatch(video)
    if match is None or (dataset == "pku_v2" and int(match["number"]) not in PKU2_SUBJECTS):
        raise UserError(f"{video}: not a video of {dataset}, whose names are like {PKU_EXAMPLES[dataset]}")
    if protocol == "cross_view":
        return match["view"] in PKU_TRAIN_VIEWS
    return int(match["number"]) not in (PKU1_VAL_VIDEOS if dataset == "pku_v1" else PKU2_VAL_SUBJECTS)
