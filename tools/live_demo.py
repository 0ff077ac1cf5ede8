"""Classifies a stream of skeletons frame by frame.

    python -m tools.live_demo --pretrained RUN/classifier.pth --dataset ui_prmd    # test clips simulate a sensor, 30 Hz
    my_sensor | python -m tools.live_demo --pretrained RUN/classifier.pth --stdin json

Each frame is one step of the encoder, which gives the clip feature of all frames so far (of the last frame, or pooled, as the
encoder does it); the trained classifier gives its class. A terminal shows the most probable class in a line that is rewritten;
elsewhere a line is printed when the class changes. The last lines have the possible frames per second and the share of the time
between two frames that a frame needs; they are also printed after Ctrl-C.

A classifier is trained on clips resized to 64 frames; a stream keeps the sensor's rate, and its first frames carry little
information. So the class of a sequence is that at its end. --segments cuts a sequence where the body rests, so that each movement
is one action with a start and an end; an action unlike all training clips is "none of them".

--film FILE.gif writes the animated skeleton with its classes, --window shows it live (engine.live_picture).
"""

import sys

from options.live import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import json
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np

from data_gen.poses.survey import FrameConverter
from engine.features import Classifier, load_classifier
from engine.live_picture import Film, Recorder, Window
from engine.novelty import NONE
from engine.setup import find_dataset, prepare_process
from feeder.sampling import epoch_order
from utils.clip_check import OddClips
from utils.errors import EXIT_INTERRUPTED, UserError, as_user_error, run

USUAL_RATE = 30.0  # frames per second of a Kinect


def dataset_sequences(args, found: Classifier) -> Iterator[tuple[str, str | None, Iterator[np.ndarray]]]:
    """Test clips of --dataset as sequences (name, true class, frames (V, 3, M)), at --rate."""
    dataset = find_dataset(args.data_root, args.dataset, args.protocol, ("val",))
    dataset = dataset.read_as(found.encoder.form)
    if dataset.converted:
        print(dataset.converted)
    clips = dataset.clips("val")
    for i in epoch_order(args.seed, 0, len(clips))[: args.clips].tolist():
        low, true = int(clips.offsets[i]), dataset.row.classes[int(clips.labels[i])]
        frames = clips.frames[low : low + int(clips.num_frame[i])].numpy()
        yield clips.names[i], true, at_rate(frames, args.rate)


def at_rate(frames, rate: float) -> Iterator[np.ndarray]:
    """Yields the frames at `rate` per second; 0 for no delay."""
    start = time.monotonic()
    for i, frame in enumerate(frames):
        if rate:
            time.sleep(max(0.0, start + i / rate - time.monotonic()))
        yield frame


def parse_line(line: str, kind: str, joints: int, converter: FrameConverter | None = None) -> np.ndarray:
    """A frame (V, 3) or (M, V, 3) from a line; UserError when it is none. converter: for JSON that is no list of numbers, as pose
    estimators write it."""
    try:
        if kind == "json":
            frame = json.loads(line)
            if converter is not None and _has_names(frame):
                return converter(frame)
            return np.asarray(frame, dtype=np.float64)
        numbers = np.array([float(word) for word in line.split(",")], dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        shown = line.strip()[:60].encode("ascii", "backslashreplace").decode()
        raise UserError(f"expected {kind} of numbers, found {shown!r}") from None
    for size in (3, 2):
        if len(numbers) % (size * joints) == 0:
            return numbers.reshape(-1, joints, size)
    raise UserError(f"expected x,y,z (or x,y) of {joints} joints for each person, found {len(numbers)} numbers")


def _has_names(frame) -> bool:
    """Whether a parsed frame is in the format of a pose estimator: a dict, or a list of dicts (joints or persons)."""
    return (
        isinstance(frame, dict) and bool(frame) or isinstance(frame, list) and any(isinstance(p, dict) for p in frame)
    )


def received(
    lines, kind: str, joints: int, converter: FrameConverter | None = None
) -> Iterator[tuple[str, None, Iterator[np.ndarray]]]:
    """Sequences (name, None, frames) from lines of text; an empty line ends a sequence. UserError, with the number of the line, for
    one that is no frame."""
    lines = enumerate(lines, 1)

    def until_empty(first):
        number, line = first
        while line.strip():
            with as_user_error(f"standard input, line {number}", UserError):
                frame = parse_line(line, kind, joints, converter)
            yield frame
            number, line = next(lines, (number, ""))

    sequence = 0
    for first in lines:
        if first[1].strip():
            sequence += 1
            yield f"sequence {sequence}", None, until_empty(first)


class Movement:
    """Detects whether a body moves: the mean speed of its joints, exponentially smoothed, is above `rest_speed` (m/s at `rate`
    frames per second). It rests only after HOLD seconds below that, so that a turning point does not end a movement."""

    HOLD, SMOOTH = 0.5, 0.3

    def __init__(self, rate: float, rest_speed: float):
        self.rate, self.rest_speed = rate or 30.0, rest_speed
        self._before, self._speed, self._slow, self.moves = None, 0.0, 0, False

    def __call__(self, frame) -> bool:
        """Whether the body moves in this frame. frame: coordinates of any shape; joints at zero are missing."""
        now = np.asarray(frame, dtype=np.float64)
        now = np.moveaxis(now, -2, -1) if now.ndim == 3 and now.shape[-1] != 3 else now  # (V, 3, M): coordinates last
        now = now.reshape(-1, 3)
        before, self._before = self._before, now
        if before is not None and before.shape == now.shape:
            seen = (before != 0).any(axis=1) & (now != 0).any(axis=1)
            speed = float(np.linalg.norm(now - before, axis=1)[seen].mean() * self.rate) if seen.any() else 0.0
            self._speed += self.SMOOTH * (speed - self._speed)
        self._slow = 0 if self._speed > self.rest_speed else self._slow + 1
        self.moves = self._slow == 0 or (self.moves and self._slow < self.HOLD * self.rate)
        return self.moves


def actions(
    sequences, rate: float, rest_speed: float, say, mark=lambda start: None
) -> Iterator[tuple[str, str | None, Iterator[np.ndarray]]]:
    """Splits sequences into movements between two rests, each a sequence. say: prints where one starts and ends; mark(start):
    called at each start and end."""
    for name, true, frames in sequences:
        numbered, movement, number = iter(enumerate(frames, 1)), Movement(rate, rest_speed), 0

        def until_rest(title, start, first, numbered=numbered, movement=movement):
            say(f"{title} starts at frame {start}")
            mark(True)
            yield first
            end = start
            for number, frame in numbered:
                end = number
                yield frame
                if not movement(frame):
                    break
            say(f"{title} ends at frame {end}")
            mark(False)

        for start, frame in numbered:
            if movement(frame):
                number += 1
                title = f"{name}, action {number}"
                yield title, true, until_rest(title, start, frame)


class Display:
    """Prints the current class: a line that is rewritten on a terminal, elsewhere a line for each new class. answer(class,
    probability): also called for every frame."""

    def __init__(self, out, answer=lambda name, probability: None):
        self.out, self.rewrite, self.shown, self.answer = out, out.isatty(), None, answer

    def show(self, frame: int, name: str, share: float, seconds: float) -> None:
        self.answer(name, share)
        text = f"  frame {frame:4d}  {name:<30.30}  {100 * share:3.0f} %  {1e3 * seconds:5.1f} ms"
        if self.rewrite:
            self.out.write(f"\r{text}")
        elif name != self.shown:
            self.out.write(f"{text}\n")
        self.shown = name
        self.out.flush()

    def end(self, text: str) -> None:
        self.out.write(("\n" if self.rewrite and self.shown else "") + text + "\n")
        self.out.flush()
        self.shown = None


def classify_sequence(
    found: Classifier, stream, name: str, frames, display: Display, costs: list[float], threshold: float = np.inf
):
    """Classifies one sequence and shows the class after every frame; returns the last (class, probability), None without frames.

    name: of the sequence, for messages; costs: gets the seconds of each frame, from its arrival to its class; threshold: of the
    distance, see `answer_of`."""
    stream.reset()
    last = None
    for number, frame in enumerate(frames, 1):
        start = time.perf_counter()
        feature = stream.step(frame, f"{name}, frame {number}")
        if feature is not None:
            last = answer_of(found, stream.clip, threshold)
        costs.append(time.perf_counter() - start)
        if last is not None:
            display.show(number, *last, costs[-1])
    feature = stream.finish()
    return last if feature is None else answer_of(found, stream.clip, threshold)


def answer_of(found: Classifier, feature: np.ndarray, threshold: float) -> tuple[str, float]:
    """The most probable class and its probability; "none of them" if the distance of the feature (D,) to the training clips is
    above the threshold."""
    p = found.probabilities(feature)
    none = found.novelty is not None and threshold < np.inf and float(found.novelty(feature[None])[0]) > threshold
    return (NONE if none else found.classes[int(p.argmax())]), float(p.max())


def classify_all(
    found: Classifier, stream, sequences, display: Display, costs: list[float], threshold: float = np.inf
) -> tuple[int, int]:
    """Classifies all sequences; returns the number of right ones and the number of those with a known class."""
    right = judged = 0
    for name, true, frames in sequences:
        last = classify_sequence(found, stream, name, frames, display, costs, threshold)
        if last is None:
            continue
        truth = "" if true is None else f" (true: {true})"
        display.end(f"{name}: {last[0]}, {100 * last[1]:.0f} %{truth}")
        judged += true is not None
        right += true == last[0]
    return right, judged


def cost_in_words(costs: list[float], rate: float) -> str:
    """Possible frames per second, and the share of the time between two frames that one needs, as a line of text."""
    mean, slow = float(np.mean(costs)), float(np.quantile(costs, 0.99))
    between = 1 / (rate or USUAL_RATE)
    return (
        f"{len(costs)} frames, {1 / mean:.0f} a second possible: {1e3 * mean:.2f} ms each (99 % below {1e3 * slow:.2f} ms), "
        f"{100 * mean / between:.0f} % of the {1e3 * between:.0f} ms between two frames"
    )


def open_picture(args, found: Classifier) -> Recorder:
    """The recorder of the stream with the outputs of --film and --window; UserError if one is not possible."""
    layout, rate, outlets = found.encoder.input_layout, args.rate or USUAL_RATE, []
    if args.film:
        outlets.append(Film(args.film, layout, found.classes, rate))
    if args.window:
        outlets.append(Window(layout, found.classes))
    idle = "at rest" if args.segments else "..."
    return Recorder(layout, found.encoder.persons, rate, idle, tuple(outlets), whole=not args.segments)


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    found = load_classifier(args.classifier, "none" if args.dataset else args.normalise, args.device, args.input_layout)
    stream = found.encoder.start_stream(OddClips(strict=True) if args.strict else None)
    joints = found.encoder.input_layout.joints
    print(
        f"{found.encoder.source}: {len(found.classes)} classes of {found.trained_on or 'unknown data'}, {found.encoder.device}"
    )
    if found.encoder.converted:
        print(found.encoder.converted)
    converter = FrameConverter(found.encoder.input_layout, args.input_layout)
    sequences = dataset_sequences(args, found) if args.dataset else received(sys.stdin, args.stdin, joints, converter)
    picture = open_picture(args, found)
    sequences = picture.watched(sequences)
    display, costs = Display(sys.stdout, picture.answer), []
    if args.segments:
        sequences = actions(sequences, args.rate, args.rest_speed, display.end, picture.mark)
    threshold = np.inf if found.novelty is None else found.novelty.threshold(args.none)
    try:
        with closing(picture):
            right, judged = classify_all(found, stream, sequences, display, costs, threshold)
    except KeyboardInterrupt:  # the usual end of a sensor's stream
        if not costs:
            raise
        display.end("interrupted")
        print(cost_in_words(costs, args.rate))
        return EXIT_INTERRUPTED
    if not costs:
        never = ", or no movement was detected; give a smaller --rest-speed" if args.segments else ""
        raise UserError(f"no frame was received (--stdin reads one frame per line){never}")
    if judged:
        print(f"{right} of {judged} clips right at their end")
    print(cost_in_words(costs, args.rate))
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
