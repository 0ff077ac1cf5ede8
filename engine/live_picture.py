"""The animated picture of tools.live_demo: the skeleton, the current class or "none of them", and a timeline of both.

The drawing has two outputs: a `Window`, which needs a screen and limits drawing to a share of the time, so that it does not slow
the stream down; and a `Film`, a GIF (or MP4 with ffmpeg), which needs no screen and is drawn at the end from stored frames.

Top: the name of the sequence, the class and its probability. Middle: the body, joints as dots. Bottom: a band of the last
seconds, coloured by class, grey for "none of them", empty while nothing is classified, with a mark at each start and end of an
action. The view follows the body sideways and keeps the ground and the scale of the largest body so far.
"""

import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from engine.features import as_clip, clip_of_frame
from engine.novelty import NONE
from utils.drawing import ANIMATIONS, Stage, check_drawing_path, part_paint, save_animation, upright
from utils.errors import UserError
from utils.plots import import_matplotlib, literal, new_figure, with_default_style
from utils.skeleton import Layout

SECONDS = 10.0  # length of the band
LETTERS = 9  # letters that fit into one second of the band
COLOURS = ("#1f77b4", "#d1495b", "#2a9d5c", "#e07b00", "#7b5ea7", "#0f9aa8", "#a0522d", "#c2185b", "#6b8e23", "#3f51b5")
GREY, INK, PALE = "#9aa0a8", "#22262d", "#4a505a"
SIZE = (6.4, 4.8)  # inches of 100 pixels
FILM_RATE = 10.0  # pictures a second
MOST_PICTURES = 600  # of a film: the last minute
SHARE = 0.4  # share of the time that a window may draw
TOOLKITS = ("QtAgg", "TkAgg", "GTK4Agg", "GTK3Agg", "WXAgg", "macosx")


@dataclass(frozen=True)
class Moment:
    """The content of one picture. clip (3, 1, V, M); text: name of the sequence; answer: class or NONE, '' while nothing is
    classified; probability: of the class; at: seconds since the start of the stream; band: (begin, end, answer), the oldest
    first; marks: (seconds, whether it is a start); idle: text shown while nothing is classified."""

    clip: np.ndarray
    text: str
    answer: str
    probability: float
    at: float
    band: tuple[tuple[float, float, str], ...]
    marks: tuple[tuple[float, bool], ...]
    idle: str


class Recorder:
    """Makes a `Moment` of every frame of a stream, for its outlets (films and windows; nothing is drawn without one). rate: frames
    per second; layout, persons: of the frames; idle: text shown while nothing is classified; whole: a sequence is one action."""

    def __init__(
        self, layout: Layout, persons: int, rate: float, idle: str = "...", outlets: tuple = (), whole: bool = True
    ):
        self.layout, self.persons, self.rate, self._idle = layout, persons, rate, idle
        self._outlets, self._whole = outlets, whole
        self._number, self._text, self._answer = 0, "", ("", 0.0)
        self._band: list[tuple[float, float, str]] = []
        self._marks: list[tuple[float, bool]] = []
        self._last: Moment | None = None

    def sequence(self, text: str) -> None:
        """Starts a sequence, without a class yet."""
        self._text, self._answer = text, ("", 0.0)

    def mark(self, start: bool) -> None:
        """Marks that an action starts with the next frame, or has ended with the last one; clears the class."""
        self._marks.append((self._number / self.rate, start))
        self._answer = ("", 0.0)

    def answer(self, name: str, probability: float) -> None:
        """Sets the current class."""
        self._answer = (name, probability)

    def moment(self, frame) -> Moment:
        """The moment of the next frame, in any form that a stream accepts. UserError for anything else."""
        clip = as_clip(clip_of_frame(frame, self.layout, "frame"), self.layout, self.persons, "frame")
        begin, end = self._number / self.rate, (self._number + 1) / self.rate
        self._number += 1
        if self._band and self._band[-1][2] == self._answer[0]:
            begin = self._band.pop()[0]
        self._band.append((begin, end, self._answer[0]))
        self._band = [piece for piece in self._band if piece[1] > end - SECONDS]
        self._marks = [mark for mark in self._marks if mark[0] > end - SECONDS]
        self._last = Moment(clip, self._text, *self._answer, end, tuple(self._band), tuple(self._marks), self._idle)
        return self._last

    def end(self) -> Moment | None:
        """The last moment with the marks that came after it; None without a frame."""
        return self._last and replace(self._last, marks=tuple(self._marks))

    def watched(self, sequences):
        """Passes sequences (name, true class, frames) through; a frame is drawn when the next one is requested, so that its class
        is known."""
        if not self._outlets:
            yield from sequences
            return

        def seen(frames):
            for frame in frames:
                yield frame
                moment = self.moment(frame)
                for outlet in self._outlets:
                    outlet.add(moment)

        for name, true, frames in sequences:
            self.sequence(name if true is None else f"{name} (true: {true})")
            if self._whole:
                self.mark(True)
            yield name, true, seen(frames)
            if self._whole:
                self.mark(False)

    def close(self) -> None:
        for outlet in self._outlets:
            outlet.close(self.end())


class Drawing:
    """Draws one `Moment` after the other into `figure` (empty). classes: K names, each of which gets a colour."""

    def __init__(self, figure, layout: Layout, classes):
        from matplotlib.collections import LineCollection

        self.figure, self.layout = figure, layout
        self._colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(classes)} | {NONE: GREY}
        self._up: tuple[int, float] | None = None
        self._half, self._low = 1e-3, 0.0
        figure.set_layout_engine("none")
        self._body = figure.add_axes((0.02, 0.2, 0.96, 0.62))
        self._body.axis("off")
        self._lines = self._body.add_collection(LineCollection([], linewidths=3.2, capstyle="round"))
        self._dots = self._body.scatter([], [], s=14, color=INK, zorder=3)
        self._band = figure.add_axes((0.04, 0.09, 0.92, 0.07))
        figure.text(0.96, 0.025, "> an action starts   < it ends", fontsize=8, color=PALE, ha="right", va="center")
        texts = ((0.95, 10, PALE, "normal"), (0.87, 19, INK, "bold"))
        self._text, self._class = (
            figure.text(0.04, y, "", fontsize=size, color=colour, weight=weight, va="center")
            for y, size, colour, weight in texts
        )

    def show(self, moment: Moment) -> None:
        """Updates the figure; does not render it."""
        self._show_body(moment.clip)
        self._show_band(moment)
        self._text.set_text(f"{literal(moment.text, 60)}   {moment.at:.1f} s")
        sure = "" if moment.answer in ("", NONE) else f"  {100 * moment.probability:.0f} %"
        self._class.set_text(literal(moment.answer or moment.idle, 34) + sure)
        self._class.set_color(self._colours.get(moment.answer, GREY))

    def _show_body(self, clip: np.ndarray) -> None:
        there = (clip != 0).any(axis=(0, 1, 2))  # persons (M,)
        if there.any() and self._up is None:
            self._up = upright([clip[..., there][..., :1]], self.layout)
        vertical, sign = self._up or (1, 1.0)
        view = np.stack([clip[0], sign * clip[vertical]], axis=-1).astype(np.float64)  # (1, V, M, 2)
        view = np.where(self._seen(clip)[..., None], view, np.nan)
        stage = Stage([view], [part_paint(self.layout, 1, clip.shape[3])], np.ones(2), self.layout)
        ends, colours = stage.lines(0, 0)
        self._lines.set_segments(list(ends))
        self._lines.set_color(colours)
        self._dots.set_offsets(view[0].reshape(-1, 2))
        if there.any():
            low, high = np.nanmin(view, axis=(0, 1, 2)), np.nanmax(view, axis=(0, 1, 2))
            half = 0.6 * max(high[1] - low[1], (high[0] - low[0]) / 1.8)
            if half > self._half:
                self._half, self._low = half, low[1]
            middle, ground = (low[0] + high[0]) / 2, min(self._low, low[1])
            width, height = self._body.get_window_extent().size
            across = self._half * width / height
            self._body.set(
                xlim=(middle - across, middle + across), ylim=(ground - 0.1 * self._half, ground + 1.9 * self._half)
            )

    def _seen(self, clip: np.ndarray) -> np.ndarray:
        """Mask (1, V, M) of present joints. Missing joints are zero, but so is the centre of a normalised body."""
        seen, centre = (clip != 0).any(axis=0), self.layout.centre
        for m in np.flatnonzero(seen.any(axis=(0, 1))):
            body = clip[:, 0, seen[0, :, m], m]
            seen[0, centre, m] |= bool((body.min(axis=1) <= 0).all() and (body.max(axis=1) >= 0).all())
        return seen

    def _show_band(self, moment: Moment) -> None:
        axes = self._band
        axes.clear()
        begin = max(0.0, moment.at - SECONDS)
        for left, right, name in moment.band:
            if name:
                left = max(left, begin)
                axes.axvspan(left, right, color=self._colours.get(name, GREY), lw=0)
                if len(name) <= LETTERS * (right - left):
                    axes.text(
                        (left + right) / 2, 0.47, literal(name), color="white", fontsize=8, ha="center", va="center"
                    )
        for start, marker in ((True, ">"), (False, "<")):
            at = [second for second, is_start in moment.marks if is_start == start]
            axes.vlines(at, 0, 1, color=INK, lw=1.5)
            axes.scatter(at, [1.3] * len(at), marker=marker, s=30, color=INK, clip_on=False)
        axes.set(xlim=(begin, begin + SECONDS), ylim=(0, 1), yticks=[])
        axes.tick_params(labelsize=8, colors=PALE)
        axes.set_xticks(np.arange(np.ceil(begin / 2) * 2, begin + SECONDS + 0.01, 2))
        axes.xaxis.set_major_formatter("{x:.0f} s")


class Film:
    """Stores moments and writes them as an animation at the end. path: .gif or .mp4; rate: of the stream. UserError for another
    ending, and without matplotlib (or, for .mp4, ffmpeg)."""

    def __init__(self, path, layout: Layout, classes, rate: float, say=print):
        import_matplotlib()  # fails now if it is missing, not at the end of the stream
        if check_drawing_path(path).suffix.lower() not in ANIMATIONS:
            raise UserError(f"--film {path}: a film's name must end in {' or '.join(ANIMATIONS)}")
        self.path, self.layout, self.classes, self._say = path, layout, classes, say
        self._every = max(1, round(rate / FILM_RATE))
        self.fps = rate / self._every
        self._kept: deque[Moment] = deque(maxlen=MOST_PICTURES)
        self._count = 0

    def add(self, moment: Moment) -> None:
        """Stores every n-th moment of the stream."""
        if self._count % self._every == 0:
            self._kept.append(moment)
        self._count += 1

    def close(self, last: Moment | None) -> None:
        """Draws the film, with the last moment at its end, and writes it; does nothing without a frame."""
        if last is not None:
            self._kept.append(last)
            save_animation(self.path, list(self._pictures()), self.fps)
            seconds, whole = len(self._kept) / self.fps, self._count / self._every / self.fps
            of = f", the last of {whole:.0f} s" if self._count > self._every * MOST_PICTURES else ""
            self._say(f"{self.path}: {seconds:.1f} s{of}, {self.fps:g} pictures a second")

    @with_default_style
    def _pictures(self) -> list:
        from PIL import Image

        drawing, printed, pictures = Drawing(new_figure(*SIZE), self.layout, self.classes), time.monotonic(), []
        for moment in self._kept:
            drawing.show(moment)
            canvas = drawing.figure.canvas
            canvas.draw()
            pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
            if time.monotonic() - printed > 4:
                self._say(f"{self.path}: {len(pictures)} of {len(self._kept)} pictures")
                printed = time.monotonic()
        return pictures


class Window:
    """Draws moments into a window as they come and skips those for which there is no time. UserError if no window can be opened."""

    def __init__(self, layout: Layout, classes):
        import_matplotlib()
        from matplotlib import pyplot

        self._pyplot, self._free_at = pyplot, 0.0
        reasons = []
        for toolkit in TOOLKITS:
            try:
                pyplot.switch_backend(toolkit)
                figure = pyplot.figure("live_demo", figsize=SIZE)
                break
            except Exception as error:  # each toolkit raises its own errors without its package or a screen
                reasons.append(f"{toolkit}: {' '.join(str(error).split())[:60]}")
        else:
            raise UserError(
                f"no window can be opened ({'; '.join(reasons[:2])}); where there is a screen, pip install PyQt6, else "
                "--film FILE.gif writes the picture into a file"
            )
        self._drawing = Drawing(figure, layout, classes)
        pyplot.show(block=False)

    def add(self, moment: Moment) -> None:
        """Draws a moment, if there is time; if the user has closed the window, the stream continues without it."""
        figure, start = self._drawing.figure, time.monotonic()
        if start < self._free_at or not self._pyplot.fignum_exists(figure.number):
            return
        self._drawing.show(moment)
        figure.canvas.draw_idle()
        figure.canvas.flush_events()
        spent = time.monotonic() - start
        self._free_at = start + spent / SHARE

    def close(self, last: Moment | None) -> None:
        self._pyplot.close(self._drawing.figure)
