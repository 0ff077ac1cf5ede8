"""The registry of data sets: a row for each data set that the programs know by name.

A row says where the prepared arrays are under `--data-root` (several folder names are in use; the first one that exists is
read), the classes, the number of persons, the joint layout, and the folder of each protocol. Any other folder under
`--data-root` with a `dataset.json` is also a data set (see `from_description`).

`counts` are the numbers of train and val clips without those on the missing list; a preparation with other counts is wrong.
"""

from dataclasses import dataclass, field

from options import class_names


@dataclass(frozen=True)
class DatasetRow:
    """One data set.

    folders: names under the data root, in order of preference; protocols: protocol -> folder names in order of
    preference; counts: protocol -> (train, val) clips; classes: class names, whose number is the number of classes.
    """

    name: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    protocols: dict[str, tuple[str, ...]]
    layout: str = "kinect_v2_25"
    persons: int = 2
    dimensions: int = 3  # of a joint; 2: z = 0 in every array (data_gen.normalise)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    prepare: str = ""  # the command that makes the arrays, for the message if they are missing

    @property
    def num_classes(self) -> int:
        return len(self.classes)


_XSUB = ("xsub",)
_XVIEW = ("xview",)
_XSET = ("xset", "xsetup")

DATASETS = {
    row.name: row
    for row in (
        DatasetRow(
            name="ntu60",
            folders=("ntu60", "NTU-RGB-D-60-AGCN", "NTU60"),
            classes=class_names.NTU120[:60],
            protocols={"cross_subject": _XSUB, "cross_view": _XVIEW},
            counts={"cross_subject": (40091, 16487), "cross_view": (37646, 18932)},
            prepare="python -m data_gen.prepare_ntu --dataset ntu60 --raw FOLDER_OR_ZIP",
        ),
        DatasetRow(
            name="ntu120",
            folders=("ntu120", "NTU-RGB-D-120-AGCN", "NTU120"),
            classes=class_names.NTU120,
            protocols={"cross_subject": _XSUB, "cross_setup": _XSET},
            counts={"cross_subject": (63026, 50919), "cross_setup": (54468, 59477)},
            prepare="python -m data_gen.prepare_ntu --dataset ntu120 --raw FOLDER_OR_ZIP",
        ),
        DatasetRow(
            name="pku_v1",
            folders=("pku_v1", "PKU-MMD-v1-AGCN"),
            classes=class_names.PKU,
            protocols={"cross_subject": _XSUB, "cross_view": _XVIEW},
            counts={"cross_subject": (18841, 2704)},
            prepare="python -m data_gen.prepare_pku --dataset pku_v1 --raw FOLDER",
        ),
        DatasetRow(
            name="pku_v2",
            folders=("pku_v2", "PKU-MMD-v2-AGCN"),
            classes=class_names.PKU,
            protocols={"cross_subject": _XSUB, "cross_view": _XVIEW},
            prepare="python -m data_gen.prepare_pku --dataset pku_v2 --raw FOLDER",
        ),
        DatasetRow(
            name="ui_prmd",
            folders=("ui_prmd",),
            classes=class_names.UI_PRMD,
            protocols={"cross_subject": _XSUB, "cross_quality": ("xqual",)},
            persons=1,
            counts={"cross_subject": (1000, 1000), "cross_quality": (1000, 1000)},
            prepare="python -m data_gen.ui_prmd",
        ),
        DatasetRow(
            name="ui_prmd_quality",
            folders=("ui_prmd_quality",),
            classes=tuple(f"{name}, {how}" for name in class_names.UI_PRMD for how in ("correct", "incorrect")),
            protocols={"cross_subject": _XSUB},
            persons=1,
            counts={"cross_subject": (1000, 1000)},
            prepare="python -m data_gen.ui_prmd",
        ),
    )
}

PROTOCOLS = ("cross_subject", "cross_view", "cross_setup", "cross_quality")
MAX_CLASSES = 100_000  # more must be a mistake, or labels that are not class numbers


class DescriptionError(ValueError):
    """A wrong `dataset.json`; the message tells the user which field and what it should be."""


def from_description(name: str, description: object) -> DatasetRow:
    """A registry row from the content of a user's `dataset.json`.

    The file is a JSON object: `classes` (a list of names, or their number), `protocols` (protocol name -> folder),
    `layout` (a joint layout, default kinect_v2_25), `persons` (default 2), `dimensions` (3, or 2 for clips in an image
    plane), `name` (optional). DescriptionError for a wrong field."""
    if not isinstance(description, dict):
        raise DescriptionError("must hold a JSON object with classes, protocols and layout")
    known = ("classes", "protocols", "layout", "persons", "dimensions")
    unknown = sorted(set(description) - {*known, "name", "source", "counts"})
    if unknown:
        raise DescriptionError(f"has an unknown field {unknown[0]!r}; expected {', '.join(known)}")
    classes = description.get("classes")
    if isinstance(classes, int) and not isinstance(classes, bool) and 1 <= classes <= MAX_CLASSES:
        classes = [f"class {i}" for i in range(classes)]
    if not (isinstance(classes, list) and classes and all(isinstance(c, str) for c in classes)):
        raise DescriptionError("'classes' must be a list of class names, or their number")
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DescriptionError(f"'classes' names {twice!r} twice; each class needs a name of its own")
    protocols = description.get("protocols")
    if not (
        isinstance(protocols, dict)
        and protocols
        and all(isinstance(v, str) and v and "/" not in v and v not in (".", "..") for v in protocols.values())
    ):
        raise DescriptionError('\'protocols\' must map protocol names to folders, like {"cross_subject": "xsub"}')
    persons = description.get("persons", 2)
    if not (isinstance(persons, int) and not isinstance(persons, bool) and 1 <= persons <= 16):
        raise DescriptionError("'persons' must be a whole number from 1 to 16")
    layout = description.get("layout", "kinect_v2_25")
    if not isinstance(layout, str):
        raise DescriptionError("'layout' must be the name of a joint layout, like kinect_v2_25")
    dimensions = description.get("dimensions", 3)
    if type(dimensions) is not int or dimensions not in (2, 3):
        raise DescriptionError("'dimensions' must be 3, or 2 for clips in an image plane")
    return DatasetRow(
        name=name,
        folders=(name,),
        classes=tuple(classes),
        protocols={k: (v,) for k, v in protocols.items()},
        layout=layout,
        persons=persons,
        dimensions=dimensions,
    )
