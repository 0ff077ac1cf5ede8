"""Reads a folder or file of poses into clips in Kinect's space, and says in words what was decided.

`survey` scans the source, reads a sample and decides once for all clips: layout, units, axes. The `Reader` that it
returns converts one entry (file or folder) at a time, independently of the others, so that processes can share the work
and get the same clips. It orders the joints as the layout does, turns coordinates into Kinect's space, mends faults
(data_gen.poses.mend) and, where another layout is wanted, converts to it last (utils.convert_layout).
`FrameConverter` does the same for a stream of single frames.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from data_gen.poses import joints
from data_gen.poses.forms import FORMS, Entry, read_entry, scan
from data_gen.poses.jsons import FrameReader
from data_gen.poses.mend import Mending, hide, mend, zero_unseen
from data_gen.poses.record import Bad, BadPoses, PoseOptions, Poses, stack
from data_gen.poses.space import Space, find_space
from utils.convert_layout import convert, describe_conversion
from utils.errors import UserError, as_user_error
from utils.skeleton import Layout, get_layout

SAMPLE = 40  # entries that are read to decide on layout, units and axes


@dataclass(frozen=True)
class Clip:
    """A converted clip. array (M, T, V, 3) float32, metres (in two dimensions pixels, with z = 0), zeros for what is not
    seen; the rest as in record.Poses."""

    name: str
    array: np.ndarray
    label: str | None
    split: str | None
    subject: str | None
    mended: dict[str, int] = field(default_factory=dict)


def ordered(poses: Poses, layout: Layout) -> Poses:
    """The clip with its joints in the layout's order, NaN for those that the file lacks. BadPoses when they do not match."""
    V = poses.points.shape[2]
    if poses.joints is not None:
        match = joints.match_names(poses.joints, layout.name)
        if match is None:
            raise BadPoses(f"its joints ({', '.join(poses.joints[:4])}, ...) are not those of {layout.name}")
        if match[1] == list(range(V)):
            return poses
        places = match[1]
    elif V == layout.joints:
        return poses
    elif joints.WHOLE_BODY.get(V, ("",))[0] == layout.name:
        places = list(range(layout.joints))
    else:
        raise BadPoses(f"{V} joints, but {layout.name} has {layout.joints}; the other clips are of this layout")
    score = None if poses.score is None else joints.reorder(poses.score, places)
    return replace(poses, points=joints.reorder(poses.points, places), score=score, joints=None)


@dataclass(frozen=True)
class Reader:
    """Converts an entry to clips; picklable. layout: joint layout of the files; target: of the converted clips."""

    layout: Layout
    target: Layout
    space: Space
    mending: Mending = Mending()
    axes: str = ""
    skip_bad: bool = False

    def __call__(self, entry: Entry) -> list[Clip | Bad]:
        """The clips of an entry; for a bad file or clip a `Bad` with the reason instead of an exception."""
        try:
            found = read_entry(entry, self.axes, self.skip_bad)
        except BadPoses as error:
            return [Bad(entry.name, str(error))]
        return [self._clip(one, entry) if isinstance(one, Poses) else one for one in found]

    def _clip(self, poses: Poses, entry: Entry) -> Clip | Bad:
        try:
            array, mended = self.array(poses)
        except BadPoses as error:
            inner = "" if poses.name == entry.name else f", clip {poses.name}"
            return Bad(poses.name, f"{entry.path}{inner}: {error}")
        return Clip(poses.name, array, poses.label, poses.split, poses.subject, mended)

    def array(self, poses: Poses) -> tuple[np.ndarray, dict[str, int]]:
        """(array (M, T, V, 3) float32, kind of fault -> how often it was mended)."""
        poses = ordered(poses, self.layout)
        mended = dict(poses.mended)
        return self.to_target(mend(poses.points, poses.score, poses.fps, self.mending, mended), poses.size), mended

    def to_target(self, points: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Points (T, M, V, C) of a file, NaN where not seen -> (M, T, V', 3) float32 in the target layout, zeros there."""
        points = convert(self.space.of(points, size), self.layout, self.target, axis=2)
        points = zero_unseen(points)
        if points.shape[3] == 2:
            points = np.concatenate([points, np.zeros_like(points[..., :1])], axis=3)
        return np.ascontiguousarray(points.transpose(1, 0, 2, 3), dtype=np.float32)


@dataclass(frozen=True)
class Survey:
    """Result of `survey`. entries: sorted by name; forms: format -> number of clips in the sample; lines: the decisions, for
    the user."""

    entries: list[Entry]
    reader: Reader
    forms: dict[str, int]
    lines: list[str]


def _sample(root, entries: list[Entry], axes: str) -> list[Poses]:
    """Clips of at most SAMPLE evenly spread entries; unreadable ones are skipped here and reported when all are read."""
    picked = np.unique(np.linspace(0, len(entries) - 1, min(SAMPLE, len(entries))).astype(int))
    clips, first = [], None
    for i in picked:
        try:
            clips += [one for one in read_entry(entries[i], axes, True) if isinstance(one, Poses)]
        except BadPoses as error:
            first = first or error
    if not clips:
        raise first or UserError(f"{root}: none of its clips can be read")
    return clips


def find_layout(sample: list[Poses], place) -> tuple[Layout, str]:
    """(layout, why) of most clips of the sample; UserError when it cannot be determined."""
    votes: Counter = Counter()
    reasons: dict[str, str] = {}
    open_clips: dict[int, list[Poses]] = {}
    for poses in sample:
        if poses.joints is not None:
            match = joints.match_names(poses.joints)
            if match is not None:
                votes[match[0]] += 1
                missing = sum(p < 0 for p in match[1])
                reasons.setdefault(
                    match[0], "from the names of its joints" + (f", {missing} are missing" * bool(missing))
                )
                continue
        elif poses.layout is not None:
            votes[poses.layout] += 1
            reasons.setdefault(poses.layout, f"{poses.points.shape[2]} joints, as in files of this format")
            continue
        open_clips.setdefault(poses.points.shape[2], []).append(poses)
    for clips in open_clips.values():
        if sum(votes.values()) >= len(sample) - len(votes) and votes and len(clips) < max(votes.values()):
            continue
        C = min(one.points.shape[3] for one in clips)
        bodies = np.concatenate([joints.whole_bodies(one.points, 20)[..., :C] for one in clips])
        try:
            name, why = joints.by_shape(bodies[:, None] if len(bodies) else clips[0].points, str(place))
        except UserError:
            if votes:
                continue
            raise
        votes[name] += len(clips)
        reasons[name] = why
    if not votes:
        shown = ", ".join((sample[0].joints or ())[:6])
        raise UserError(
            f"{place}: joints {shown}, ... are not those of a known layout; --layout gives the intended one"
        )
    name = votes.most_common(1)[0][0]
    return get_layout(name), reasons[name]


def survey(
    source, options: PoseOptions | None = None, mending: Mending | None = None, skip_bad: bool = False
) -> Survey:
    """Looks at a folder or file of poses and decides how it is read. UserError when it has no poses, or when the layout,
    units or axes cannot be determined."""
    options, mending = options or PoseOptions(), mending or Mending()
    entries, left = scan(source, options.form)
    sample = _sample(source, entries, options.axes)
    forms = dict(Counter(poses.form for poses in sample))
    if options.layout:
        layout, why = get_layout(options.layout), "as --layout says"
    else:
        layout, why = find_layout(sample, source)
    usable, first = [], None
    for poses in sample:
        try:
            usable.append(ordered(poses, layout))
        except BadPoses as error:
            first = first or f"{poses.name}: {error}"
    if not usable:
        raise UserError(f"{source}: no clip of the sample fits layout {layout.name}; {first}")
    with as_user_error(str(source), UserError):
        space = find_space(usable, layout, options)
    target = get_layout(options.target) if options.target else layout
    rates = sorted({round(poses.fps, 2) for poses in usable if poses.fps})
    rates = " to ".join(f"{rate:g}" for rate in dict.fromkeys(rates[:1] + rates[-1:])) or "not stated"
    lines = [
        "format: " + ", ".join(FORMS[form].words for form in forms) + ", as --format says" * bool(options.form),
        f"layout: {layout.name}, {space.dimensions}-D ({why})",
        *space.lines,
        f"frames a second: {rates}",
    ]
    if target != layout:
        lines.append(f"converted: {describe_conversion(layout, target)}")
    if left:
        lines.append("ignored: " + ", ".join(f"{n} {ending}" for ending, n in sorted(left.items())))
    return Survey(entries, Reader(layout, target, space, mending, options.axes, skip_bad), forms, lines)


# --- poses that come frame by frame --------------------------------------------------------------------------------


class FrameConverter:
    """Converts single frames in any form that `jsons.FrameReader` reads to (M, V, 3). target: layout of the result; layout:
    of the frames, None to find it; say: called once with each line of what was found.

    Layout, units and axes are determined from the first frame with a person and kept for the whole stream."""

    def __init__(self, target: Layout, layout: str | None = None, say=print):
        self.target, self._wanted, self._say = target, layout, say
        self._frames, self._reader = FrameReader("frame"), None

    def __call__(self, frame) -> np.ndarray:
        """A parsed frame -> (M, V, 3) float32, zeros for what is not seen; zeros (1, V, 3) without a person. UserError for a
        frame that cannot be read, or whose layout cannot be determined."""
        people = self._frames.persons(frame, 0)
        if not people:
            return np.zeros((1, self.target.joints, 3), dtype=np.float32)
        width = people[0].shape[1]
        points, score = stack([people], "frame", self._frames.dimensions or (2 if width == 2 else 3))
        units, up = ("m", "-y") if self._frames.world else (None, None)
        poses = Poses("stream", points, score, joints=self._frames.names, units=units, up=up)
        if self._reader is None:
            self._reader = self._decide(poses)
        return self._reader.to_target(_seen(poses, self._reader.layout).points)[:, 0]

    def _decide(self, poses: Poses) -> Reader:
        if self._wanted:
            layout, why = get_layout(self._wanted), "as --input-layout says"
        else:
            layout, why = find_layout([poses], "frame")
        space = find_space([_seen(poses, layout)], layout)
        lines = [f"layout: {layout.name} ({why})", *space.lines]
        if layout != self.target:
            lines.append(describe_conversion(layout, self.target))
        for line in lines:
            self._say(f"found  {line}")
        return Reader(layout, self.target, space)


def _seen(poses: Poses, layout: Layout) -> Poses:
    """The joints in the layout's order, NaN for those that were not seen."""
    poses = ordered(poses, layout)
    return replace(poses, points=hide(poses.points, poses.score, 0.0, {}))
