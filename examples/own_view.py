"""A view of one's own, in one function and one declaration: joint dropout as a fifth view of pretraining, with its own weight.

    python examples/own_view.py pretrain_moco_mask --view-weights dropped=0.5 --recipe paper --pre-dataset ui_prmd ...
    python examples/own_view.py visualize runs/pretrain/checkpoint_last.pth.tar --show views

The first word is the program, the rest are its flags; --view-weights switches the view on. Its contrast with the clip's key is
added to the loss with that weight, and stands in the log and in metrics.jsonl under its name. The checkpoint is used like any
other; only what makes the view again (resuming, `--show views`, its figure in a report) is started through this file. Inside of
the project the function and the declaration would stand in feeder/views.py.
"""

import importlib
import sys
from pathlib import Path

from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from feeder.views import VIEWS, Sources, View
from utils.errors import UserError, run

PROGRAMS = {"pretrain_moco_mask": "pretrain_moco_mask", "visualize": "tools.visualize", "report": "tools.report"}
SHARE = 0.3  # of the joints that are missing, on average


def dropped(sources: Sources) -> Tensor:
    """The query view without some of the joints, in all of its frames. (n, T, F)"""
    joints = sources.layout.joints
    kept = sources.uniforms("dropped", joints) >= SHARE  # (n, V)
    by_joint = sources.query.unflatten(-1, (joints, -1))  # (n, T, V, C * M)
    return (by_joint * kept[:, None, :, None]).flatten(-2)


VIEWS["dropped"] = View(dropped, prompt="mask")


def main(argv) -> int:
    if not argv or argv[0] not in PROGRAMS:
        raise UserError(f"the first word is the program ({', '.join(PROGRAMS)}), got {argv[0] if argv else 'nothing'}")
    return importlib.import_module(PROGRAMS[argv[0]]).main(argv[1:])


if __name__ == "__main__":
    run(main, sys.argv[1:])
