"""Features of your own clip in five lines: python examples/features_of_a_clip.py checkpoint_last.pth.tar clip.npy"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.features import load, read_clip
from utils.errors import UserError, run


def main(argv) -> int:
    if len(argv) != 2:
        raise UserError("give a checkpoint and a clip: examples/features_of_a_clip.py checkpoint_last.pth.tar clip.npy")
    checkpoint, path = argv
    encoder = load(checkpoint)  # of this project, of the original release, of a related method, or a bare encoder
    clip = read_clip(path)  # (T, V, 3) for one person or (T, V, 3, M), metres, any number of frames
    feature = encoder.clip_features([clip])[0]  # (D,)
    frames = encoder.frame_features(clip)  # (T, D)
    print(f"{encoder.source}, {encoder.stream} stream")
    print(
        f"clip {clip.shape} -> feature {feature.shape} of length {np.linalg.norm(feature):.3f}, frames {frames.shape}"
    )
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
