"""Classifies clips of your own.

    python predict.py --pretrained runs/linear_ui_prmd_cross_subject_small/classifier.pth my_clips  # a trained classifier
    python predict.py --pretrained ENCODER.pth.tar my_clips --labelled my_labelled_clips            # one from a few clips

The run folder gets predictions.csv (engine.answers): for each clip its class, the three best classes with their
probabilities, or "none of them" if its distance to the training clips is above a threshold (engine.novelty), which is
logged. With --labelled (CLASS/NAME.npy) a classifier is trained first and cross-validated (engine.few_labels):
cross_validation.csv and .json have the predictions and the accuracy, confusion.png the confusion matrix, and classifier.pth
is for later calls. If clips to classify are in folders named after classes, the accuracy is also printed.
"""

import sys

from options.predict import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from collections.abc import Callable

import numpy as np
import torch

from engine import answers
from engine.clip_files import ClipFiles, PoseFiles, open_clips
from engine.evaluation import shares_by_class
from engine.features import Classifier, SkeletonEncoder, classifier_content, load, load_classifier
from engine.few_labels import train_few_labels
from engine.novelty import NONE
from engine.setup import prepare_process
from utils import checkpoint as files
from utils.clip_check import OddClips
from utils.errors import UserError, run
from utils.metrics import confusion_matrix, topk_accuracy
from utils.plots import beside_results, draw_confusion
from utils.run_folder import RunFolder

LEAST_FRAMES = 2  # a single pose has no motion


def encode(
    encoder: SkeletonEncoder, source: ClipFiles | PoseFiles, args, log: Callable[[str], None]
) -> tuple[list[int], np.ndarray]:
    """Indices of the clips that could be read, and their features (N, D). UserError for a clip that cannot be read, or, with
    --skip-bad, if none can."""
    kept, features, batch, odd = [], [], [], OddClips()

    def flush() -> None:
        if batch:
            places = [source.place(source.names[number]) for number, _ in batch]
            features.extend(encoder.clip_batches([clip for _, clip in batch], args.batch_size, places, odd))
            kept.extend(number for number, _ in batch)
            batch.clear()

    logged = time.monotonic()
    for number, name in enumerate(source.names):
        try:
            batch.append((number, checked(encoder, source.read(name), source.place(name))))
        except UserError as error:
            if not args.skip_bad:
                raise UserError(f"{error}; --skip-bad skips such clips") from None
            log(f"skipped: {error}")
        if len(batch) == args.batch_size:
            flush()
            if time.monotonic() - logged > 4:
                log(f"{len(kept)} of {len(source)} clips")
                logged = time.monotonic()
    flush()
    odd.warn()
    if not kept:
        raise UserError(f"{source.root}: none of its {len(source)} clips can be read")
    return kept, np.concatenate(features)


def checked(encoder: SkeletonEncoder, array: np.ndarray, place: str) -> np.ndarray:
    """The clip. UserError if it does not fit the encoder, or has too few frames; place: its file, for messages."""
    clip = encoder.checked(array, place)
    if clip.shape[1] < LEAST_FRAMES:
        raise UserError(f"{place}: it has one frame, expected {LEAST_FRAMES} or more")
    return array


def labels_of(source: ClipFiles | PoseFiles, kept: list[int], classes) -> np.ndarray:
    """The class number (N,) of each clip by its folder, -1 if that is not one of the classes."""
    number = {name: k for k, name in enumerate(classes)}
    folders = source.classes()
    return np.array([number.get(folders[i], -1) for i in kept])


def check_classes(path, source: ClipFiles | PoseFiles) -> None:
    """UserError for a labelled clip that is not in the folder of a class."""
    if None in source.classes():
        name = source.names[source.classes().index(None)]
        raise UserError(f"{path}: clip {name} has no class; expected CLASS/NAME.npy, a folder for each class")


def train_on_labelled(
    args,
    folder: RunFolder,
    encoder: SkeletonEncoder,
    source: ClipFiles | PoseFiles,
    kept: list[int],
    features: np.ndarray,
) -> Classifier:
    """A classifier trained on the --labelled clips, cross-validated and saved. kept, features: see `encode`."""
    classes = tuple(sorted({source.classes()[i] for i in kept}))
    labels = labels_of(source, kept, classes)
    found = train_few_labels(features, labels, classes, args.folds, args.seed)
    names = [source.names[i] for i in kept]
    y = torch.from_numpy(labels)
    right = topk_accuracy(found.scores, y, (1,))[1]
    confusion = confusion_matrix(found.scores.argmax(dim=1), y, len(classes))
    title = f"{found.folds}-fold cross-validation of {len(names)} clips: {100 * right:.1f} % right"
    probabilities = answers.softmax(found.scores)
    answers.write_predictions(folder.path / "cross_validation.csv", names, probabilities, classes, labels)
    counts = np.bincount(labels)
    each = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else f"{counts.min()}"
    folder.write_json(
        "cross_validation.json",
        {
            "encoder": encoder.source,
            "clips": len(names),
            "folds": found.folds,
            "top1": right,
            "per_class": shares_by_class(confusion, classes),
        },
    )
    with beside_results("confusion.png", folder.log):
        draw_confusion(folder.path / "confusion.png", confusion.numpy(), classes, title)
    folder.log(
        f"{len(names)} labelled clips of {len(classes)} classes ({each} of each): "
        f"{found.folds}-fold cross-validation {100 * right:.1f} % right, confusion.png shows which"
    )
    folder.log("if clips of one person are in several folds, the accuracy for a new person will be lower")
    about = {"stream": encoder.stream, "seed": args.seed, "dataset": str(args.labelled)}
    content = classifier_content(encoder.encoder, found.fc, classes, about, found.novelty)
    files.save(folder.path / "classifier.pth", content)
    return Classifier(encoder, found.fc.to(encoder.device), classes, str(args.labelled), found.novelty)


def threshold_of(args, found: Classifier, folder: RunFolder) -> float:
    """The distance above which a clip is none of the classes; infinite if the classifier stores no distances. Logs it."""
    if found.novelty is None:
        folder.log(f"this classifier stores no distances (an older file), so that no clip is {NONE}")
        return float("inf")
    threshold = found.novelty.threshold(args.none)
    if args.none:
        folder.log(
            f"{NONE}: clips whose distance to the nearest of {len(found.novelty.gallery)} training clips is above "
            f"{threshold:.4f}, as that of {100 * args.none:g} % of {len(found.novelty.distances)} held-out clips of known "
            "classes"
        )
    return threshold


def answer(
    args, found: Classifier, folder: RunFolder, source: ClipFiles | PoseFiles, kept: list[int], features: np.ndarray
) -> None:
    """Writes predictions.csv and logs a summary. kept, features: of the clips, see `encode`."""
    threshold = threshold_of(args, found, folder)
    probabilities, names = found.probabilities(features), [source.names[i] for i in kept]
    distances = None if found.novelty is None else found.novelty(features)
    labels = labels_of(source, kept, found.classes)
    known = labels >= 0
    predicted = answers.write_predictions(
        folder.path / answers.FILE,
        names,
        probabilities,
        found.classes,
        labels if known.any() else None,
        distances,
        threshold,
    )
    none = predicted.count(NONE)
    folder.log(f"{len(names)} clips, {none} of them {NONE}: {folder.path / answers.FILE}")
    if known.any():
        right = sum(found.classes[k] == name for k, name in zip(labels[known], np.array(predicted)[known], strict=True))
        best = int((probabilities.argmax(axis=1) == labels)[known].sum())
        folder.log(
            f"{right} of {int(known.sum())} right, by the names of their folders ({best} if {NONE!r} is replaced by the most "
            "probable class)"
        )


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    found = None
    if args.labelled:
        own = (args.stream, args.layout, args.persons, args.normalise)
        encoder = load(args.source, *own, args.device, args.input_layout)
    else:
        found = load_classifier(args.source, args.normalise, args.device, args.input_layout)
        encoder = found.encoder
    sources = {path: open_clips(path, encoder) for path in (args.labelled, args.input) if path}
    if args.labelled:
        check_classes(args.labelled, sources[args.labelled])
    lines: list[str] = []  # for the log of the run folder, which is opened (and an earlier one renamed) after encoding

    def log(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    encoded = {path: encode(encoder, source, args, log) for path, source in sources.items()}
    with RunFolder(args.output, "predict", vars(args)) as folder:
        for line in lines:
            folder.log(line, show=False)
        for path, source in sources.items():
            for line in source.lines:
                folder.log(f"{path}: {line}")
        found = found or train_on_labelled(args, folder, encoder, sources[args.labelled], *encoded[args.labelled])
        folder.log(
            f"{found.encoder.source}: {len(found.classes)} classes of {found.trained_on or 'unknown data'}, "
            f"{found.encoder.stream} stream, {found.encoder.layout.name}, {found.encoder.device}"
        )
        if found.encoder.converted:
            folder.log(found.encoder.converted)
        if args.input:
            answer(args, found, folder, sources[args.input], *encoded[args.input])
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
