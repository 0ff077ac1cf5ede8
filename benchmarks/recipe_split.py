"""The data set on which recipes are searched: UI-PRMD's twenty classes, three training subjects against two others of them.

    python -m benchmarks.recipe_split --data-root data
    python -m tools.ablation --data-root data --dataset ui_prmd_search --rows benchmarks/recipe_search.json --seeds 1

Its clips are those of the five training subjects of `ui_prmd_quality` only, so that the test split is not looked at while
recipes are chosen: subjects 3 and 9 ask, 1, 5 and 7 are learned from. Subject 7 is left-handed, the only one of the five: what
the others do with the right arm says little about what he does with the left, unless views or training clips are mirrored (raw
bones by 1-NN name 44 % of his clips rightly, and 69 % with the other three's clips a second time, mirrored).

A second cut, to see whether a choice holds for other people, a third, which asks him, and the stand-in for a set of 400 clips by
four people:

    python -m benchmarks.recipe_split --asked s01 s05 --name ui_prmd_search_b
    python -m benchmarks.recipe_split --asked s01 s07 --name ui_prmd_search_c
    python -m benchmarks.recipe_split --asked s01 --every 2 --name ui_prmd_few
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from engine.setup import find_dataset
from utils.arrays import SplitWriter, building_folder, publish
from utils.errors import run
from utils.files import write_json

SOURCE, NAME = "ui_prmd_quality", "ui_prmd_search"
ASKED = ("s03", "s09")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe_split", description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default="data", help="folder of all data sets")
    parser.add_argument("--asked", nargs="+", default=ASKED, metavar="SUBJECT", help="who is in the val split")
    parser.add_argument("--name", default=NAME, help="of the data set")
    parser.add_argument(
        "--every", type=int, default=1, help="of the others' clips of a class, every n-th is learned from"
    )
    args = parser.parse_args(argv)
    found = find_dataset(args.data_root, SOURCE, "cross_subject", ("train",))
    clips, layout = found.clips("train"), found.layout
    asked = np.array([name.split("_")[1] in args.asked for name in clips.names])
    labels = clips.labels.numpy()
    learned = np.flatnonzero(~asked)
    learned = np.sort(learned[np.argsort(labels[learned], kind="stable")][:: args.every])
    target = Path(args.data_root, args.name)
    with building_folder(target.absolute()) as temporary:
        splits = {}
        for split, rows in (("train", learned), ("val", np.flatnonzero(asked))):
            names = [clips.names[i] for i in rows]
            writer = SplitWriter(Path(temporary, "xsub"), split, names, labels[rows], layout.joints, clips.persons)
            for index, i in enumerate(rows.tolist()):
                low, n = int(clips.offsets[i]), int(clips.num_frame[i])
                writer.write(index, clips.frames[low : low + n].permute(2, 0, 1, 3).numpy(), n)
            splits[split] = writer.finish()
        publish(Path(temporary, "xsub"), target / "xsub", {"normalisation": found.normalised, "splits": splits})
    description = {"classes": list(found.row.classes), "protocols": {"cross_subject": "xsub"}}
    write_json(target / "dataset.json", description | {"layout": layout.name, "persons": clips.persons})
    print(f"{target}: {splits['train']['clips']} train and {splits['val']['clips']} val clips")


if __name__ == "__main__":
    run(main, sys.argv[1:])
