"""Makes the data set for the search of recipes: UI-PRMD's twenty classes, with its five training subjects split three to two.

    python -m benchmarks.recipe_split --data-root data
    python -m tools.ablation --data-root data --dataset ui_prmd_search --rows benchmarks/recipe_search.json --seeds 1

It has the clips of the five training subjects of `ui_prmd_quality` only, so that recipes are chosen without the test split:
subjects 1, 5 and 7 are its train split, 3 and 9 its val split. Subject 7 is the only left-handed one: what the others do with the
right arm says little about what he does with the left, unless views or training clips are mirrored (1-NN on raw bones recognises
44 % of his clips, and 69 % with mirrored copies of the other three subjects' clips).

A second split, to see whether a choice holds for other people, a third, with subject 7 in val, and a small set of 400 clips by
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
    parser.add_argument("--asked", nargs="+", default=ASKED, metavar="SUBJECT", help="subjects of the val split")
    parser.add_argument("--name", default=NAME, help="of the data set")
    parser.add_argument("--every", type=int, default=1, help="use every n-th training clip of a class")
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
