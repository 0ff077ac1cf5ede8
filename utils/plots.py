"""Pictures: stick figures, confusion matrices and curves, written as files and never shown on a screen.

matplotlib is imported inside the functions, so that a program that draws nothing does not pay for it, and is used
through `Figure` on the Agg canvas: no display, no global state. A picture is written under a temporary name and
renamed; its format follows the ending of its name (.png, .pdf or .svg). The parent folder is made when it is missing.
"""

from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

FORMATS = (".png", ".pdf", ".svg")
PART_COLOURS = ("#444444", "#c44e52", "#4c72b0", "#dd8452", "#55a868")  # trunk, arm, arm, leg, leg of a layout
SECOND_PERSON = "#b0a0c8"  # every further person is drawn in this one colour, behind person 1
MOST_NAMES = 130  # class names beyond this many are not legible at any size; they are left out
MOST_NUMBERS = 25  # classes up to which the share is also written into each cell


def new_figure(width: float, height: float):
    """An empty figure of that size in inches, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_picture_path(path) -> Path:
    """`path` as a Path; UserError unless it ends in .png, .pdf or .svg (to refuse before hours of work)."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: a picture's name must end in {', '.join(FORMATS)}")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a picture, such as {path / 'picture.png'}")
    return path


def save_figure(figure, path: Path) -> None:
    """Writes the figure whole or not at all, in the format of the path's ending; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=110)


def _upright_axes(clips, layout) -> tuple[int, int, float]:
    """(horizontal axis, vertical axis, sign) of the view: the coordinate along which the spine runs in
    most clips is drawn upwards, z after normalisation, y in a sensor's own coordinates; x is drawn to the right."""
    spines = [clip[:, 0, layout.up[1], 0] - clip[:, 0, layout.up[0], 0] for clip in clips if clip.shape[1]]
    spine = np.sum([s / max(float(np.linalg.norm(s)), 1e-9) for s in spines], axis=0) if spines else np.array([0, 0, 1])
    vertical = 1 + int(np.argmax(np.abs(spine[1:])))
    return 0, vertical, -1.0 if spine[vertical] < 0 else 1.0


def _part_of_joint(layout) -> list[int]:
    return [next(k for k, part in enumerate(layout.parts) if joint in part) for joint in range(layout.joints)]


def _draw_person(axes, points: np.ndarray, layout, colours) -> None:
    """points (V, 2): a line from every joint to its parent. Joints at exactly zero of an empty person are no joints."""
    for joint, parent in enumerate(layout.parents):
        if joint != parent:
            x, y = points[[joint, parent]].T
            axes.plot(x, y, color=colours[joint], linewidth=1.6, solid_capstyle="round")


def draw_clips(path, clips, layout, titles=None, poses: int = 8) -> None:
    """Draws a sheet of stick figures: a row for each clip, `poses` frames of it from its first (left) to its last.

    path: .png, .pdf or .svg; clips: sequence of arrays (3, t, V, M) of valid frames only, any unit (a joint that is not a
    number is left out of the drawing); layout: the
    Layout (parents say which joints are joined, parts give the colours); titles: one string a clip. All rows share
    one scale, so that a clip in millimetres among metres is seen at once. x is to the right: a normalised body is seen from behind.
    Raises UserError for another ending, ValueError for clips of another shape or no clip at all."""
    path = check_picture_path(path)
    clips = [np.asarray(clip, dtype=np.float64) for clip in clips]
    titles = [""] * len(clips) if titles is None else list(titles)
    if not clips or len(titles) != len(clips):
        raise ValueError(f"expected at least one clip and a title each, found {len(clips)} and {len(titles)}")
    for clip in clips:
        if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[2] != layout.joints:
            raise ValueError(f"expected clips (3, t, {layout.joints}, M), found {clip.shape}")
    drawn, clips = clips, [np.where(np.isfinite(clip), clip, 0.0) for clip in clips]
    across, vertical, sign = _upright_axes(clips, layout)
    parts = _part_of_joint(layout)
    extent = [np.ptp(clip[[across, vertical]], axis=(1, 2, 3)).max() for clip in clips if clip.shape[1]]
    half = 0.55 * max(max(extent, default=1.0), 1e-6)

    figure = new_figure(1.1 * poses + 0.6, 1.35 * len(clips) + 0.2)
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.03)
    grid = figure.subplots(len(clips), poses, squeeze=False)
    for row, clip, points, title in zip(grid, clips, drawn, titles, strict=True):
        frames = np.linspace(0, max(clip.shape[1] - 1, 0), poses).round().astype(int)
        view = clip[[across, vertical]] * np.array([1.0, sign])[:, None, None, None]
        shown = view[:, np.any(clip != 0, axis=(0, 2, 3))] if clip.shape[1] else view
        middle = (shown.min(axis=(1, 2, 3)) + shown.max(axis=(1, 2, 3))) / 2 if shown.size else np.zeros(2)
        for axes, frame in zip(row, frames, strict=True):
            axes.set(xlim=middle[0] + np.array([-half, half]), ylim=middle[1] + np.array([-half, half]))
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.set_xlabel(str(frame), fontsize=6, labelpad=1)
            for person in reversed(range(clip.shape[3])) if clip.shape[1] else ():
                if np.any(clip[:, frame, :, person]):
                    colours = [PART_COLOURS[k] if person == 0 else SECOND_PERSON for k in parts]
                    figure_of = points[[across, vertical], frame, :, person] * np.array([1.0, sign])[:, None]
                    _draw_person(axes, figure_of.T, layout, colours)
        # outside the layout, or a long title would widen the first column
        row[0].text(0, 1.03, title, fontsize=7, transform=row[0].transAxes).set_in_layout(False)
    save_figure(figure, path)


def draw_confusion(path, matrix, names) -> None:
    """Draws a confusion matrix: rows are true classes, columns are predicted ones, colour is the share of the row.

    matrix (K, K): counts, or shares (each row is divided by its sum; an empty row stays empty); names: K class names.
    Raises UserError for another ending, ValueError unless matrix is square with a name a row."""
    path = check_picture_path(path)
    matrix = np.asarray(matrix, dtype=np.float64)
    K = len(names)
    if matrix.shape != (K, K) or not K:
        raise ValueError(f"expected a matrix ({K}, {K}) for {K} class names, found {matrix.shape}")
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)
    side = float(np.clip(0.17 * K + 3.0, 4.5, 24.0))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axes, label="share of the true class", fraction=0.04, pad=0.01)
    axes.set(xlabel="predicted class", ylabel="true class")
    if K <= MOST_NAMES:
        size = float(np.clip(110.0 / K, 5.0, 9.0))
        axes.set_xticks(range(K), names, rotation=90, fontsize=size)
        axes.set_yticks(range(K), names, fontsize=size)
    if K <= MOST_NUMBERS:
        for i, j in np.argwhere(share >= 0.005):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=6, color=colour)
    save_figure(figure, path)


def draw_curves(path, curves: dict, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Draws lines {label: (x, y)} with x and y of equal length; points that are not finite leave a gap.

    Raises UserError for another ending, ValueError when a curve's x and y differ in length or there is no curve."""
    path = check_picture_path(path)
    if not curves:
        raise ValueError("expected at least one curve")
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for label, (x, y) in curves.items():
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"curve {label!r}: x {x.shape} and y {y.shape} must be flat and of one length")
        axes.plot(x, np.where(np.isfinite(y), y, np.nan), label=str(label), marker="o" if len(x) < 25 else None, ms=3)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    if len(curves) > 1 or "" not in curves:
        axes.legend(fontsize=8)
    save_figure(figure, path)
