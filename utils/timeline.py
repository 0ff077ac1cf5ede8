"""The picture of a detection: a video's true segments above the predicted ones, over time."""

import numpy as np

from utils.plots import check_picture_path, drawn_alike, labels, literal, new_figure, save_figure


@drawn_alike
def draw_timeline(path, frames: int, truth, found, names, title: str = "") -> None:
    """Two bars over the frames of a video, truth above prediction; an action has one colour in both.

    frames: length of the video; truth, found: rows (class from 1, start, end, score), the score shown as opacity in the
    lower bar; names: of the classes 1, 2, ...
    Raises UserError for another ending than .png, .pdf or .svg."""
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
            # hatched from the twentieth class on, where the colours begin again
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
