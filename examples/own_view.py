"""A view of your own, in one function and one row: joint dropout as a fifth view of pretraining, with a weight of its own.

    python examples/own_view.py pretrain_moco_mask --view-weights dropped=0.5 --recipe paper --pre-dataset ui_prmd ...
    python examples/own_view.py visualize runs/pretrain/checkpoint_last.pth.tar --show views

The first word is the program, the others are its flags; --view-weights switches the view on. Its contrast with the clip's key
is added to the loss with this weight, and logged under its name, also in metrics.jsonl. The checkpoint is used like any other;
only programs that make the view again (to resume, for `--show views`, for its figure in a report) must be started through this
file. Inside of the project the function and the row would be in feeder/views.py.
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
SHARE = 0.3  # mean share of dropped joints


def dropped(sources: Sources) -> Tensor:
    """The query view (n, T, F) with some joints set to 0 in all frames."""
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
