"""Stick figures: clips (3, t, V, M) as strips (pictures) and as animations (GIF, or MP4 with ffmpeg).

A `Stage` defines the view of all clips: the vertical coordinate, the rotation about it, and one common scale, so that a clip
in millimetres among clips in metres is noticed. Strips and animations draw its lines. Normalised clips are drawn with `up` =
Z_UP, as an encoder reads them: a body with wrong axes lies on its side.

The `paint` of a clip has a colour for every joint and frame, (t, V, M, 3) in 0..1; the line from a joint to its parent has
the colour of the joint, and is not drawn if that is NaN. Without paint, body parts have fixed colours. A `legend`, pairs of
words and '#rrggbb' below the figures, explains the colours; that of the body parts is made here.
"""

import os
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write, temporary_name
from utils.plots import (
    FORMATS,
    check_picture_path,
    legend_below,
    literal,
    new_figure,
    save_figure,
    with_default_style,
)
from utils.skeleton import at

ANIMATIONS = (".gif", ".mp4")
PART_COLOURS = ("#444444", "#c44e52", "#4c72b0", "#dd8452", "#55a868")  # trunk, arm, arm, leg, leg
Z_UP = (2, 1.0)  # (vertical axis, sign) of normalised clips
SECOND_PERSON = "#b0a0c8"  # colour of all further persons, who are drawn behind person 1
PANEL = 240  # least longer side of an animated panel, pixels
WIDTH, HIGHEST_PANEL = 640, 420  # width of an animation, unless its panels would be higher than this; pixels
INK = "#3c4048"  # of the titles
DPI = 100  # of animations
LEGEND_PAD = 10  # pixels between the panels and the legend below them
TITLE_BAR, TITLE_SIZE, TITLE_LETTER = 40, 8, 7  # titles of animated panels: height in pixels, points, pixels per letter


def rgb(colour: str) -> np.ndarray:
    """'#rrggbb' -> (3,) in 0..1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def part_paint(layout, frames: int, persons: int) -> np.ndarray:
    """Paint (frames, V, persons, 3): person 1 by body part, the others in SECOND_PERSON."""
    paint = np.empty((frames, layout.joints, persons, 3))
    paint[:] = rgb(SECOND_PERSON)
    for part, colour in zip(layout.parts, PART_COLOURS, strict=True):
        paint[:, list(part), 0] = rgb(colour)
    return paint


def part_legend(layout, clips) -> list[tuple[str, str]]:
    """The legend of `part_paint`: (words, colour); with an entry for further persons if a clip has one."""
    words = []
    for kind, part in zip(("trunk", "arm", "arm", "leg", "leg"), layout.parts, strict=True):
        sides = {side for side in ("left", "right") if any(side in layout.names[j] for j in part)}
        words.append(f"{sides.pop()} {kind}" if len(sides) == 1 else kind)
    legend = list(zip(words, PART_COLOURS, strict=True))
    several = any(np.nan_to_num(clip[..., 1:]).any() for clip in clips)
    return legend + [("other person", SECOND_PERSON)] * several


@dataclass(frozen=True)
class Stage:
    """What is drawn. views: for each clip (t, V, M, 2), horizontal and vertical, centred at (0, 0), NaN for absent persons;
    paints: for each clip (t, V, M, 3); half (2,): half the width and height of the box that contains all clips."""

    views: list[np.ndarray]
    paints: list[np.ndarray]
    half: np.ndarray
    layout: object
    titles: tuple[str, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()

    def lines(self, i: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Lines (n, 2 ends, 2) of a frame of clip i and their colours (n, 3); those of person 1 are last, in front."""
        view, paint = self.views[i][frame], self.paints[i][frame]
        joints = np.array([j for j, parent in enumerate(self.layout.parents) if j != parent])
        parents = np.array(self.layout.parents)[joints]
        ends = np.stack([view[joints], view[parents]], axis=2)[:, ::-1]  # (V', M, 2 ends, 2)
        colours = paint[joints][:, ::-1]
        ends, colours = ends.swapaxes(0, 1).reshape(-1, 2, 2), colours.swapaxes(0, 1).reshape(-1, 3)
        shown = np.isfinite(ends).all(axis=(1, 2)) & np.isfinite(colours).all(axis=1)
        return ends[shown], colours[shown]


def upright(clips, layout) -> tuple[int, float]:
    """(vertical axis, sign) of the view, from the direction of the spines: z after normalisation, y in a sensor's
    coordinates. clips: (3, t, V, M), finite."""
    spines = [
        at(clip[:, 0, :, 0], layout.up[1], 1) - at(clip[:, 0, :, 0], layout.up[0], 1) for clip in clips if clip.shape[1]
    ]
    spine = np.sum([s / max(float(np.linalg.norm(s)), 1e-9) for s in spines], axis=0) if spines else np.array([0, 0, 1])
    vertical = 1 + int(np.argmax(np.abs(spine[1:])))
    return vertical, -1.0 if spine[vertical] < 0 else 1.0


def set_stage(clips, layout, titles=None, paints=None, turn: float = 0.0, legend=None, up=None) -> Stage:
    """The stage of clips. clips: arrays (3, t, V, M), joints with NaN are not drawn; titles: one string above each clip; paints:
    see the module, None for body parts; turn: degrees about the vertical axis (0: x to the right, which shows a normalised
    body from behind); legend: (words, colour), None for that of the body parts, if there is no paint; up: (vertical axis,
    sign), None for that of `upright`. ValueError for a clip of another shape, no clips, or another number of titles."""
    clips = [np.asarray(clip, dtype=np.float64) for clip in clips]
    if not clips:
        raise ValueError("expected at least one clip, found none")
    for clip in clips:
        if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[2] != layout.joints:
            raise ValueError(f"expected clips (3, t, {layout.joints}, M), found {clip.shape}")
    titles = [""] * len(clips) if titles is None else list(titles)
    if len(titles) != len(clips):
        raise ValueError(f"expected a title for each of {len(clips)} clips, found {len(titles)}")
    vertical, sign = up or upright([np.where(np.isfinite(clip), clip, 0.0) for clip in clips], layout)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    views, half = [], np.full(2, 1e-6)
    for clip in clips:
        there = np.isfinite(clip).all(axis=0) & (np.nan_to_num(clip) != 0).any(axis=(0, 2))[:, None]  # (t, V, M)
        view = np.stack([cos * clip[0] - sin * clip[3 - vertical], sign * clip[vertical]], axis=-1)  # (t, V, M, 2)
        view = np.where(there[..., None], view, np.nan)
        if there.any():
            low, high = np.nanmin(view, axis=(0, 1, 2)), np.nanmax(view, axis=(0, 1, 2))
            view, half = view - (low + high) / 2, np.maximum(half, 0.55 * (high - low))
        views.append(view)
    half = np.maximum(half, 0.35 * half[::-1])  # at least so wide that titles and numbers fit
    if legend is None:
        legend = part_legend(layout, clips) if paints is None else ()
    if paints is None:
        paints = [None] * len(clips)
    whole = [
        part_paint(layout, clip.shape[1], clip.shape[3]) if paint is None else np.asarray(paint)
        for clip, paint in zip(clips, paints, strict=True)
    ]
    return Stage(views, whole, half, layout, tuple(titles), tuple(legend))


@with_default_style
def strip_figure(clips, layout, titles=None, poses: int = 8, **look):
    """A figure with a row for each clip: `poses` evenly spread frames from the first (left) to the last, with their numbers.
    Other arguments and errors as for `set_stage`."""
    from matplotlib.collections import LineCollection

    stage = set_stage(clips, layout, titles, **look)
    rows = len(stage.views)
    width, height = 2 * stage.half
    row_height = 1.3 * height  # with the title and the numbers
    inches = 1.05 / max(width, 0.62 * height)  # of one unit of the data
    figure = new_figure(max(width * inches * poses, 3.2), row_height * inches * rows)
    axes = figure.subplots()
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02)
    segments, colours = [], []
    for row, (view, title) in enumerate(zip(stage.views, stage.titles, strict=True)):
        middle = -(row + 0.5) * row_height
        axes.text(
            0.04 * height,
            middle + 0.6 * height,
            literal(title, 120),
            fontsize=7,
            va="top",
            weight="bold",
            color=INK,
        )
        for column, frame in enumerate(np.linspace(0, max(len(view) - 1, 0), poses).round().astype(int)):
            x = (column + 0.5) * width
            number = f"frame {frame}" if column == 0 else str(frame)
            axes.text(x, middle - 0.6 * height, number, fontsize=7, ha="center", va="bottom", color="#4a4f58")
            if len(view):
                ends, colour = stage.lines(row, frame)
                segments.extend(ends + np.array([x, middle]))
                colours.extend(colour)
    axes.add_collection(LineCollection(segments, colors=colours or None, linewidths=1.6, capstyle="round"))
    axes.set(xlim=(0, poses * width), ylim=(-rows * row_height, 0), aspect="equal")
    axes.axis("off")
    if stage.legend:
        _write_legend(figure, stage.legend, loc="outside lower left")
    return figure


def _write_legend(figure, entries, loc: str) -> None:
    """Adds a legend of (words, colour) below a figure, which grows accordingly."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, lw=2.5) for _, colour in entries]
    look = {"loc": loc, "borderpad": 0.2, "borderaxespad": 0.9, "handletextpad": 0.7}
    legend_below(figure, handles, [words for words, _ in entries], len(entries), **look)


@with_default_style
def draw_clips(path, clips, layout, titles=None, poses: int = 8, **look) -> None:
    """Writes `strip_figure` of clips (3, t, V, M), in any unit, to path (.png, .pdf or .svg). UserError for another suffix,
    ValueError for clips of another shape or no clips."""
    path = check_picture_path(path)
    save_figure(strip_figure(clips, layout, titles, poses, **look), path)


# -- animations -----------------------------------------------------------------------------------------------------


def check_drawing_path(path) -> Path:
    """`path` as a Path; UserError unless it ends in .png, .pdf, .svg (a strip), .gif or .mp4 (an animation), or when .mp4 is
    wanted without ffmpeg."""
    path = check_picture_path(path, FORMATS + ANIMATIONS)
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise UserError(f"{path}: .mp4 needs the program ffmpeg, which is not on the PATH; install it, or give .gif")
    return path


@with_default_style
def animation_frames(clips, layout, titles=None, columns: int = 3, **look):
    """The frames of an animation (PIL images, RGB) of all clips side by side, `columns` in a row, as long as the longest clip;
    shorter ones stay at their last frame. Other arguments and errors as for `set_stage`."""
    from matplotlib.collections import LineCollection
    from PIL import Image

    stage = set_stage(clips, layout, titles, **look)
    figure, panels = _panels(stage, min(columns, len(stage.views)))
    lines = [panel.add_collection(LineCollection([], linewidths=2.2, capstyle="round")) for panel in panels]
    canvas = figure.canvas
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)  # titles and legend
    pictures = []
    for frame in range(max(len(view) for view in stage.views)):
        canvas.restore_region(ground)
        for i, (panel, collection, view) in enumerate(zip(panels, lines, stage.views, strict=True)):
            if len(view):
                ends, colours = stage.lines(i, min(frame, len(view) - 1))
                collection.set(segments=ends, color=colours)
                panel.draw_artist(collection)
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return pictures


def _panels(stage: Stage, columns: int):
    """(figure, axes of each clip) with titles above and the legend below; even numbers of pixels, which video needs."""
    across, high = 2 * stage.half * PANEL / (2 * stage.half.max())
    scale = max(1.0, min(WIDTH / (columns * across), HIGHEST_PANEL / high))
    width, height = (max(int(n * scale), PANEL // 2) for n in (across, high))
    width = max(width, -(-WIDTH // columns))  # also for few narrow panels
    rows = -(-len(stage.titles) // columns)
    figure = new_figure(columns * width / DPI, rows * (height + TITLE_BAR) / DPI)
    figure.set_layout_engine("none")
    figure.set_dpi(DPI)
    if stage.legend:
        _write_legend(figure, stage.legend, loc="lower left")
    total = figure.get_size_inches() * DPI + np.array([0, LEGEND_PAD * bool(stage.legend)])
    total = 2 * np.ceil(total / 2 - 1e-6)
    figure.set_size_inches(total / DPI)
    panels = []
    for i, title in enumerate(stage.titles):
        left, top = (i % columns) * width, (i // columns) * (height + TITLE_BAR)
        below = total[1] - top - TITLE_BAR - height
        panel = figure.add_axes([left / total[0], below / total[1], width / total[0], height / total[1]])
        # the part of the view that fits at this scale
        half = np.array([width, height]) / 2 * stage.half.max() / (PANEL / 2 * scale)
        panel.set(xlim=(-half[0], half[0]), ylim=(-half[1], half[1]))
        panel.axis("off")
        panels.append(panel)
        words = textwrap.wrap(literal(title, 120), max(width // TITLE_LETTER, 4), max_lines=2, placeholder="…")
        place = ((left + 8) / total[0], 1 - (top + 4) / total[1])
        figure.text(*place, "\n".join(words), fontsize=TITLE_SIZE, va="top", color=INK)
    return figure, panels


def draw_animation(path, clips, layout, titles=None, columns: int = 3, fps: float = 30, **look) -> int:
    """Writes `animation_frames` at `fps` frames per second to path (.gif or .mp4), completely or not at all; returns their
    number. UserError for another suffix or without ffmpeg, ValueError as for `set_stage` and for clips without frames."""
    frames = animation_frames(clips, layout, titles, columns, **look)
    save_animation(path, frames, fps)
    return len(frames)


def save_animation(path, frames, fps: float) -> None:
    """Writes frames (PIL images, RGB, of the same even size) at `fps` per second to path (.gif or .mp4), completely or not at
    all; makes the folder. Errors as for `draw_animation`."""
    path = check_drawing_path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise ValueError(f"{path}: the name of an animation must end in {', '.join(ANIMATIONS)}")
    if not frames:
        raise ValueError("clips without a frame cannot be animated")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        _write_gif(path, frames, fps)
    else:
        _write_mp4(path, frames, fps)


def _write_gif(path: Path, frames, fps: float) -> None:
    """GIF durations are in 1/100 s, so the end of each frame is rounded to the nearest 1/100 s."""
    ends = np.round(100 * np.arange(len(frames) + 1) / fps)
    durations = [int(10 * max(d, 2)) for d in np.diff(ends)]  # viewers slow down frames shorter than 2/100 s
    palette = _palette(frames)
    still = [frame.quantize(palette=palette, dither=0) for frame in frames]
    with atomic_write(path) as file:
        still[0].save(file, format="GIF", save_all=True, append_images=still[1:], duration=durations, loop=0)


def _palette(frames):
    """A palette of 128 colours, including white, of frames from the whole animation."""
    from PIL import Image

    some = frames[:: max(len(frames) // 8, 1)]
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in some])).quantize(128)
    colours = np.reshape(palette.getpalette(), (-1, 3))
    colours[colours.min(axis=1) > 248] = 255  # the background is white, not 252
    palette.putpalette(colours.ravel().tolist())
    return palette


def _write_mp4(path: Path, frames, fps: float) -> None:
    temporary = temporary_name(path)
    size = "x".join(map(str, frames[0].size))
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}"]
    command += ["-i", "-", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(temporary)]
    try:
        ran = subprocess.run(command, input=b"".join(f.tobytes() for f in frames), capture_output=True)
        if ran.returncode:
            lines = ran.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"{path}: ffmpeg could not write it ({lines[-1] if lines else 'no reason given'})")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
