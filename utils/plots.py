"""Plots: confusion matrices, curves, time lines and embeddings, written to files and never shown on a screen.

matplotlib is imported inside the functions, so that programs without plots do not import it, and used through `Figure` on
the Agg canvas: no display, no global state. Functions that draw are decorated by `with_default_style` and use matplotlib's
default settings, whatever MPLBACKEND or a matplotlibrc say (a notebook's backend, usetex without TeX). A picture is written
under a temporary name and renamed; its format is the suffix of its name (.png, .pdf or .svg), and its folder is made if
missing. A picture beside results is drawn after them, in `beside_results`, which turns any error into a warning. Stick
figures are in utils.drawing.

Texts of users go through `literal` and `labels`: characters that matplotlib's own font lacks (such as Chinese) are taken from
a font of this machine that has them; without one, class names become numbers, and other characters a `?`.
"""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np

from utils.errors import UserError, warn
from utils.files import atomic_write

OWN_FONT = "DejaVu Sans"  # which matplotlib brings
FORMATS = (".png", ".pdf", ".svg")
MOST_NAMES = 130  # more class names are not legible and are left out
MOST_NUMBERS = 25  # up to so many classes the share is written into each cell
MOST_COUNTS = 12  # up to so many classes also the count


def import_matplotlib():
    """matplotlib, imported without the backend of the environment; UserError when it is not installed."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "Agg"  # read at import, which an unknown backend would break
    try:
        import matplotlib
        from matplotlib import font_manager  # noqa: F401
    except Exception as error:  # a broken installation can raise anything
        raise UserError(
            f"pictures need matplotlib, which cannot be imported ({type(error).__name__}: {str(error)[:100]}); install it: "
            "pip install matplotlib"
        ) from None
    finally:
        if before is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = before
    return matplotlib


class _NeedsFont(Exception):
    """A text needs a further font family. Axes take families when they are made, so the picture is drawn again with it."""


def with_default_style(function):
    """Decorator: draws with matplotlib's default settings and restores the current ones."""

    @functools.wraps(function)
    def draw(*arguments, **named):
        matplotlib = import_matplotlib()
        families = [OWN_FONT]
        while True:
            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                matplotlib.rcParams["font.family"] = families
                try:
                    return function(*arguments, **named)
                except _NeedsFont as needed:
                    families = [*families, str(needed)]

    return draw


@contextlib.contextmanager
def beside_results(what: str, say=warn):
    """A block that draws pictures beside results: any error becomes a warning, and the program continues."""
    try:
        yield
    except Exception as error:  # of any kind: a run must not fail because of a picture
        text = " ".join(str(error).split())[:150]
        say(f"{what} could not be drawn ({type(error).__name__}: {text}); the results do not depend on it")


@functools.lru_cache(maxsize=256)
def _lacking(path: str, characters: str) -> str:
    """Those of `characters` that the font file at `path` lacks."""
    from matplotlib.ft2font import FT2Font

    try:
        there = FT2Font(path).get_charmap()
    except (OSError, RuntimeError):
        return characters
    return "".join(c for c in characters if ord(c) not in there)


@functools.lru_cache(maxsize=256)
def font_for(characters: str) -> tuple[str, str] | None:
    """(family, file) of an installed font that has these characters, None without. characters: those of a text outside
    printable ASCII, each once, sorted."""
    from matplotlib import font_manager

    own = font_manager.findfont(OWN_FONT)
    if not _lacking(own, characters):
        return OWN_FONT, own
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name)):
        if entry.name != OWN_FONT and not _lacking(entry.fname, characters):
            return entry.name, entry.fname
    return None


def _odd(text: str) -> str:
    return "".join(sorted({c for c in text if not " " <= c <= "~"}))


def drawable(text: str) -> bool:
    """Whether an installed font has all characters of a text; only inside `with_default_style`, which then uses that font."""
    found = font_for(_odd(text))
    if found is None:
        return False
    import matplotlib

    if found[0] not in matplotlib.rcParams["font.family"]:
        raise _NeedsFont(found[0])
    return True


def with_fonts(text: str) -> str:
    """The text; if no installed font has all its characters, with a `?` for each one that matplotlib's own font lacks."""
    return text if drawable(text) else "".join("?" if _lacking(font_for("")[1], _odd(c)) else c for c in text)


def labels(names, most: int = 40) -> list[str]:
    """Class names for matplotlib (see `literal`); `class K` for a name with characters that no installed font has."""
    return [literal(name, most) if drawable(name) else f"class {k}" for k, name in enumerate(names)]


def new_figure(width: float, height: float):
    """An empty figure of this size in inches, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_picture_path(path, formats: tuple[str, ...] = FORMATS) -> Path:
    """`path` as a Path; UserError unless it ends in one of `formats`. Called before the work whose result is drawn."""
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise UserError(f"{path}: a picture's name must end in {', '.join(formats)}")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a picture, such as {path / 'picture.png'}")
    return path


def literal(text: str, most: int = 40) -> str:
    """A user's text for matplotlib: cut to `most` characters, with escaped dollar signs (no formulas)."""
    text = with_fonts(text if len(text) <= most else text[: most - 1] + "…")
    return text.replace("$", r"\$")


def save_figure(figure, path: Path) -> None:
    """Writes the figure, completely or not at all, in the format of the path's suffix; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=110)


@with_default_style
def draw_confusion(path, matrix, names, title: str = "") -> None:
    """Draws a confusion matrix: rows are true classes, columns predicted ones, colour is the share of the row; with few
    classes the cells also have the share in percent and the count.

    matrix (K, K): counts (each row is divided by its sum; an empty row stays empty); names: K class names. UserError for
    another suffix, ValueError unless matrix is square with one name per row."""
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
    if title:
        axes.set_title(literal(title, 120), fontsize=9, wrap=True)
    if K <= MOST_NAMES:
        size = float(np.clip(110.0 / K, 5.0, 9.0))
        shown = labels(names)
        axes.set_xticks(range(K), shown, rotation=90, fontsize=size)
        axes.set_yticks(range(K), shown, fontsize=size)
    if K <= MOST_NUMBERS:
        for i, j in np.argwhere(share >= 0.005):
            colour = "white" if share[i, j] > 0.5 else "black"
            words = f"{100 * share[i, j]:.0f}" if K > MOST_COUNTS else f"{100 * share[i, j]:.0f} %\n{matrix[i, j]:g}"
            size = 6 if K > MOST_COUNTS else float(np.clip(48.0 / K, 5.0, 9.0))
            axes.text(j, i, words, ha="center", va="center", fontsize=size, color=colour)
    save_figure(figure, path)


def draw_curves(path, curves: dict, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Draws lines {label: (x, y)} in one panel; see `draw_curve_panels`."""
    draw_curve_panels(path, {title: curves}, xlabel, ylabel)


@with_default_style
def draw_curve_panels(path, panels: dict, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Draws panels {name: {label: (x, y)}} side by side, three in a row; the curves of a panel share its axes. x and y have
    equal length; points that are None or not finite leave a gap.

    UserError for another suffix, ValueError without a panel or a curve, or when x and y of a curve differ in length."""
    path = check_picture_path(path)
    if not panels or not all(panels.values()):
        raise ValueError("expected at least one panel, and at least one curve in each")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (6.4, 4.0) if len(panels) == 1 else (4.4 * columns, 2.9 * rows + 0.3)
    figure = new_figure(width, height)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (name, curves) in zip(grid.flat, panels.items(), strict=False):
        for label, (x, y) in curves.items():
            x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
            if x.ndim != 1 or x.shape != y.shape:
                raise ValueError(
                    f"curve {label!r}: x {x.shape} and y {y.shape} must have one dimension and equal length"
                )
            y, marker = np.where(np.isfinite(y), y, np.nan), "o" if len(x) < 25 else None
            axes.plot(x, y, label=literal(str(label)), marker=marker, ms=3)
        axes.set_title(literal(name, 120), fontsize=9)
        axes.set_xlabel(xlabel, fontsize=8)
        axes.set_ylabel(ylabel, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize=7)
    if title:
        figure.suptitle(literal(title, 120), fontsize=9)
    save_figure(figure, path)


@with_default_style
def draw_timeline(path, frames: int, truth, found, names, title: str = "") -> None:
    """Draws two bars over the frames of a video, truth above prediction; an action has the same colour in both.

    frames: length of the video; truth, found: rows (class from 1, start, end, score), with the score as opacity in the lower
    bar; names: of the classes 1, 2, ... UserError for another suffix than .png, .pdf or .svg."""
    path = check_picture_path(path)
    truth, found = (np.asarray(rows, dtype=np.float64).reshape(-1, 4) for rows in (truth, found))
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    classes = sorted({int(c) for c in [*truth[:, 0], *found[:, 0]]})
    palette = colormaps["tab20"]
    colour = {c: palette((c - 1) % 20) for c in classes}
    figure = new_figure(11.0, 2.2 + 0.16 * (len(classes) // 6))
    axes = figure.subplots()
    for row, segments, height in ((1, truth, 0.8), (0, found, 0.8)):
        for c, start, end, score in segments:
            opacity = 1.0 if row else 0.35 + 0.65 * float(np.clip(score, 0, 1))
            # hatched from the 21st class on, where the colours repeat
            hatch = "//" if (int(c) - 1) // 20 % 2 else None
            axes.broken_barh(
                [(start, end - start + 1)], (row + 0.1, height), color=colour[int(c)], alpha=opacity, hatch=hatch
            )
    axes.set(xlim=(0, max(frames, 1)), ylim=(0, 2), yticks=(0.5, 1.5), yticklabels=("found", "true"), xlabel="frame")
    axes.set_title(literal(title, 120), fontsize=9)
    if classes:
        words = labels(names)
        patches = [Patch(color=colour[c], label=words[c - 1]) for c in classes]
        axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncol=6, fontsize=7, frameon=False)
    save_figure(figure, path)


@with_default_style
def draw_embedding(path, panels: dict, numbers, names) -> None:
    """Draws points by class: panels {title: points (N, 2)} side by side; numbers (N,): class of each point; names: K classes.

    Beyond 20 classes colours repeat with another marker. UserError for another suffix, ValueError when points and numbers
    differ in length."""
    path = check_picture_path(path)
    numbers = np.asarray(numbers)
    from matplotlib import colormaps

    shown, words = np.unique(numbers), labels(names)
    figure = new_figure(5.2 * len(panels), 5.0)
    marks = "osv^DP*X"
    for axes, (title, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        points = np.asarray(points)
        if points.shape != (len(numbers), 2):
            raise ValueError(f"expected points ({len(numbers)}, 2), found {points.shape}")
        for k in shown:
            of_class, style = points[numbers == k], marks[int(k) // 20 % len(marks)]
            axes.scatter(*of_class.T, s=14, marker=style, color=colormaps["tab20"](int(k) % 20), label=words[int(k)])
        axes.set(xticks=[], yticks=[], title=literal(title, 90))
    if len(shown) <= MOST_NAMES:
        legend_below(figure, *figure.axes[0].get_legend_handles_labels(), 4 * len(panels), loc="outside lower center")
    save_figure(figure, path)


def legend_below(figure, handles, texts, columns: int, **look) -> None:
    """Adds a legend below the axes in at most `columns` columns, fewer if they would be wider than the figure, which grows by
    the height of the legend. look: its position (loc) and other arguments of matplotlib's legend."""
    look = {"fontsize": 7, "frameon": False, "columnspacing": 1.4, "handletextpad": 0.4, **look}
    for number in range(columns, 0, -1):
        legend = figure.legend(handles, texts, ncols=number, **look)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or number == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
