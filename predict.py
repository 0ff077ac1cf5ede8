"""Answers which class each of somebody's clips is.

    python predict.py --pretrained runs/linear_ui_prmd_cross_subject_small/classifier.pth my_clips  # a trained classifier
    python predict.py --pretrained ENCODER.pth.tar my_clips --labelled my_labelled_clips            # one from a few clips

The run folder gets predictions.csv (engine.answers): the class, the three best with their probabilities, and "none of them"
where a clip is unlike the training clips, by a threshold that is said (engine.novelty). With --labelled (CLASS/NAME.npy) a
classifier of those classes is made first and cross-validated (engine.few_labels): cross_validation.csv says which clips went
wrong, confusion.png counts them, result.json has the figures, and classifier.pth answers later calls.
Where clips to classify lie in folders named as classes, the share that is right is printed as well.
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
from engine.few_labels import teach
from engine.novelty import NONE
from engine.setup import prepare_process
from utils import checkpoint as files
from utils.clip_check import OddClips
from utils.errors import UserError, run
from utils.metrics import confusion_matrix, topk_accuracy
from utils.plots import beside_results, draw_confusion
from utils.run_folder import RunFolder

LEAST_FRAMES = 2  # one pose is no motion


def encode(
    encoder: SkeletonEncoder, source: ClipFiles | PoseFiles, args, say: Callable[[str], None]
) -> tuple[list[int], np.ndarray]:
    """(numbers of the clips that could be read, their features (N, D)). UserError names a clip that cannot, unless
    --skip-bad leaves it out."""
    kept, features, batch, odd = [], [], [], OddClips()

    def flush() -> None:
        if batch:
            places = [source.place(source.names[number]) for number, _ in batch]
            features.extend(encoder.clip_batches([clip for _, clip in batch], args.batch_size, places, odd))
            kept.extend(number for number, _ in batch)
            batch.clear()

    told = time.monotonic()
    for number, name in enumerate(source.names):
        try:
            batch.append((number, checked(encoder, source.read(name), source.place(name))))
        except UserError as error:
            if not args.skip_bad:
                raise UserError(f"{error}; --skip-bad leaves such clips out") from None
            say(f"left out: {error}")
        if len(batch) == args.batch_size:
            flush()
            if time.monotonic() - told > 4:
                say(f"{len(kept)} of {len(source)} clips")
                told = time.monotonic()
    flush()
    odd.warn()
    if not kept:
        raise UserError(f"{source.root}: none of its {len(source)} clips can be read")
    return kept, np.concatenate(features)


def checked(encoder: SkeletonEncoder, array: np.ndarray, place: str) -> np.ndarray:
    """The clip as the encoder takes it; UserError for another layout, more persons, no motion."""
    clip = encoder.checked(array, place)
    if clip.shape[1] < LEAST_FRAMES:
        raise UserError(f"{place}: it has one frame, a motion has {LEAST_FRAMES} or more")
    return array


def labels_of(source: ClipFiles | PoseFiles, kept: list[int], classes) -> np.ndarray:
    """The class number (N,) of each clip by its folder, -1 where that is not one of the classes."""
    number = {name: k for k, name in enumerate(classes)}
    folders = source.classes()
    return np.array([number.get(folders[i], -1) for i in kept])


def check_classes(path, source: ClipFiles | PoseFiles) -> None:
    """UserError for a labelled clip that lies in no class."""
    if None in source.classes():
        loose = source.names[source.classes().index(None)]
        raise UserError(f"{path}: clip {loose} lies in no class; expected CLASS/NAME.npy, a folder a class")


def taught(
    args,
    folder: RunFolder,
    encoder: SkeletonEncoder,
    source: ClipFiles | PoseFiles,
    kept: list[int],
    features: np.ndarray,
) -> Classifier:
    """The classifier of --labelled clips, cross-validated and saved. kept, features: of them, see `encode`."""
    classes = tuple(sorted({source.classes()[i] for i in kept}))
    labels = labels_of(source, kept, classes)
    found = teach(features, labels, classes, args.folds, args.seed)
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
    folder.log("where clips of one person are in several folds, clips of a new person will do less well")
    about = {"stream": encoder.stream, "seed": args.seed, "dataset": str(args.labelled)}
    content = classifier_content(encoder.encoder, found.fc, classes, about, found.novelty)
    files.save(folder.path / "classifier.pth", content)
    return Classifier(encoder, found.fc.to(encoder.device), classes, str(args.labelled), found.novelty)


def threshold_of(args, found: Classifier, folder: RunFolder) -> float:
    """The distance from which a clip is none of the classes, said in words; infinite where nothing is."""
    if found.novelty is None:
        folder.log(f"this classifier knows no distances (an older file), so that no clip is {NONE}")
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
    """predictions.csv of the clips, and what it says in a line. kept, features: of them, see `encode`."""
    threshold = threshold_of(args, found, folder)
    probabilities, names = found.probabilities(features), [source.names[i] for i in kept]
    distances = None if found.novelty is None else found.novelty(features)
    labels = labels_of(source, kept, found.classes)
    known = labels >= 0
    said = answers.write_predictions(
        folder.path / answers.FILE,
        names,
        probabilities,
        found.classes,
        labels if known.any() else None,
        distances,
        threshold,
    )
    none = said.count(NONE)
    folder.log(f"{len(names)} clips, {none} of them {NONE}: {folder.path / answers.FILE}")
    if known.any():
        right = sum(found.classes[k] == s for k, s in zip(labels[known], np.array(said)[known], strict=True))
        best = int((probabilities.argmax(axis=1) == labels)[known].sum())
        folder.log(
            f"{right} of {int(known.sum())} right by the names of their folders ({best} with the most probable class, whatever "
            "its distance)"
        )


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    found = None  # a wrong file is refused before anything is written
    if args.labelled:
        own = (args.stream, args.layout, args.persons, args.normalise)
        encoder = load(args.source, *own, args.device, args.input_layout)
    else:
        found = load_classifier(args.source, args.normalise, args.device, args.input_layout)
        encoder = found.encoder
    sources = {path: open_clips(path, encoder) for path in (args.labelled, args.input) if path}
    if args.labelled:
        check_classes(args.labelled, sources[args.labelled])
    said: list[str] = []  # for the log, which is there when all clips are read: making it moves an earlier run aside

    def say(line: str) -> None:
        print(line, flush=True)
        said.append(line)

    encoded = {path: encode(encoder, source, args, say) for path, source in sources.items()}
    with RunFolder(args.output, "predict", vars(args)) as folder:
        for line in said:
            folder.log(line, show=False)
        for path, source in sources.items():
            for line in source.lines:
                folder.log(f"{path}: {line}")
        found = found or taught(args, folder, encoder, sources[args.labelled], *encoded[args.labelled])
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
