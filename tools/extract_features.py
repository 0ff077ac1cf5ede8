"""Writes the features of a folder of clips, or of a prepared data set.

    python -m tools.extract_features --pretrained checkpoint_last.pth.tar --input my_clips/ --output features/

features.npy (N, D) float32 has a row for each line of names.txt; with --frames there is also frames/NAME.npy (T, D) for each
clip. source.json describes the encoder and the clips. Clips are read, encoded and written batch by batch, so that memory holds
one batch. The folder is written under a temporary name and renamed when it is complete.
"""

import sys

from options.extract import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from engine.clip_files import open_clips
from engine.evaluation import find_place
from engine.features import SkeletonEncoder, load
from engine.setup import find_dataset, prepare_process, resolve_device
from feeder.evaluation import ClipViews, in_order
from utils.arrays import building_folder
from utils.clip_check import OddClips
from utils.errors import UserError, run
from utils.files import MAX_UNPACKED, save_npy, write_json


class RawClips:
    """Clips of a user's files, for an encoder. odd: collects clips whose units or axes look wrong."""

    def __init__(self, encoder: SkeletonEncoder, source: str, odd: OddClips, limit: int = MAX_UNPACKED):
        self.encoder, self.labels, self.odd, self.converted = encoder, None, odd, encoder.converted
        self.files = open_clips(source, encoder, limit)
        self.names = self.files.names
        for line in self.files.lines:
            print(line)

    def clip_batches(self, batch: int) -> Iterator[np.ndarray]:
        return self.encoder.clip_batches(self.files.clips(), batch, map(self.files.place, self.names), self.odd)

    def frame_features(self, i: int) -> np.ndarray:
        place = self.files.place(self.names[i])
        return self.encoder.frame_features(self.files.read(self.names[i]), place, odd=self.odd)


class PreparedClips:
    """The clips of a split of a prepared data set, for an encoder."""

    def __init__(self, encoder: SkeletonEncoder, data_root, name: str, protocol: str, split: str):
        dataset = find_dataset(data_root, name, protocol, (split,))
        dataset = dataset.read_as(encoder.form)
        self.converted, self.encoder = dataset.converted, encoder
        self.clips = dataset.clips(split).scaled(encoder.scale_by, encoder.layout)
        self.names, self.labels = list(self.clips.names), self.clips.labels.numpy()

    @torch.inference_mode()
    def clip_batches(self, batch: int) -> Iterator[np.ndarray]:
        parents = torch.tensor(self.encoder.layout.parents)
        views = ClipViews(self.clips, parents, self.encoder.stream, device=self.encoder.device)
        for index in in_order(len(views), batch):
            yield self.encoder.encoder(views.centre(index)).float().cpu().numpy()

    def frame_features(self, i: int) -> np.ndarray:
        low = int(self.clips.offsets[i])
        frames = self.clips.frames[low : low + int(self.clips.num_frame[i])]
        return self.encoder.frame_features(frames, self.names[i], prepared=True)


def check_names(names: list[str], frames: bool) -> None:
    """UserError unless names can be lines of a file and, with frames, names of files."""
    for name in names:
        if "\n" in name or (
            frames and (set(name) & set("\\\0") or any(part[:1] in ("", ".") for part in name.split("/")))
        ):
            raise UserError(f"clip {name!r}: its name cannot be {'a file name' if frames else 'a line'}; rename it")


def write_features(folder: Path, clips, clip_size: int, batch: int) -> None:
    """Writes features.npy (batch by batch), names.txt and, if there are labels, labels.npy."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(clips.names), clip_size)}
    bar = tqdm(total=len(clips.names), desc="clips", unit="clip", disable=None, leave=False)
    with open(folder / "features.npy", "wb") as file, bar:
        np.lib.format.write_array_header_1_0(file, header)
        for features in clips.clip_batches(batch):
            file.write(np.ascontiguousarray(features, dtype="<f4").tobytes())
            bar.update(len(features))
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in clips.names), encoding="utf-8")
    if clips.labels is not None:
        save_npy(folder / "labels.npy", clips.labels)


def write_frames(folder: Path, clips) -> int:
    """Writes folder/NAME.npy for each clip; returns the number of frames."""
    folder.mkdir()
    total = 0
    for i, name in enumerate(tqdm(clips.names, desc="frames", unit="clip", disable=None, leave=False)):
        features = clips.frame_features(i)
        place = folder / f"{name}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        save_npy(place, features)
        total += len(features)
    return total


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    output = Path(args.output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output {output}: the folder already exists; remove it, or give another folder")
    resolve_device(args.device)
    own = (args.stream, args.layout, args.persons, args.normalise)
    encoder = load(args.pretrained, *own, args.device, args.input_layout)
    odd = OddClips(args.strict)
    if args.dataset:
        place = find_place(args.data_root, args.pretrained, args.dataset, args.protocol, args.dataset)
        args.protocol = place.protocol
        for line in place.notes():
            print(line)
        clips = PreparedClips(encoder, args.data_root, args.dataset, args.protocol, args.split)
    else:
        clips = RawClips(encoder, args.input, odd, int(args.max_unpacked * 1e9))
    check_names(clips.names, args.frames)
    if clips.converted:
        print(clips.converted)
    start = time.monotonic()
    with building_folder(output.absolute()) as temporary:
        whole = temporary / "whole"
        whole.mkdir()
        write_features(whole, clips, encoder.clip_size, args.batch_size)
        frames = write_frames(whole / "frames", clips) if args.frames else 0
        about = {"encoder": encoder.source, "backbone": encoder.encoder.config.backbone, "stream": encoder.stream}
        about |= {"layout": encoder.layout.name, "persons": encoder.persons, "dimensions": encoder.clip_size}
        about |= {"clips": args.input or f"{args.dataset} {args.protocol} {args.split}"}
        about |= {"normalisation": "of the data set" if args.dataset else list(encoder.steps)}
        about |= {"converted": clips.converted} if clips.converted else {}
        odd.warn()
        write_json(whole / "source.json", about | ({"odd": odd.found} if odd.found else {}))
        os.replace(whole, output)
    shown = f" and {frames} frames" if args.frames else ""
    print(
        f"{output}: features of {len(clips.names)} clips{shown}, {encoder.clip_size} numbers each, of {encoder.source}; "
        f"{time.monotonic() - start:.1f} s"
    )
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
