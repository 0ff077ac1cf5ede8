"""Readers of arrays: .npy and .npz, pickles of MMAction2 / pyskl, NTU clips as dictionaries, .pose files.

The axes of an array are found from their sizes: C is 2 to 4, V the number of joints of a known layout. Reading object arrays
and pickles never runs code in them; the unpacked size of an archive is checked before it is read.
"""

import io
import re

import numpy as np

from data_gen.poses import joints
from data_gen.poses.record import Bad, BadPoses, Poses, read_bytes, third_is_score
from utils import files
from utils.errors import UserError
from utils.files import MAX_UNPACKED, ArrayArchive, load_pickle, read_npy_header
from utils.skeleton import LAYOUTS

MOST_PERSONS = 64
_ORDERS = {
    2: ("VC",),
    3: ("TVC", "CTV", "TCV"),
    4: ("MTVC", "TMVC", "TVCM", "CTVM"),
}  # number of axes -> orders, the most likely first
UPS = ("x", "-x", "y", "-y", "z", "-z")  # axes that may point up
_POINT_KEYS = "keypoints keypoint points poses pose landmarks joints positions positions_3d data".split()
_SCORE_KEYS = ("scores", "score", "keypoint_scores", "keypoint_score", "visibility", "confidence")


def known_joints() -> set[int]:
    return {layout.joints for layout in LAYOUTS.values()} | set(joints.WHOLE_BODY)


def axes_of(shape: tuple[int, ...]) -> str | None:
    """The order of the axes T, V, C and M of an array, None when its sizes do not show it."""
    known = known_joints()
    for axes in _ORDERS.get(len(shape), ()):
        size = dict(zip(axes, shape, strict=True))
        most = {"MTVC": min(size.get("T", 1), MOST_PERSONS), "TMVC": np.inf}.get(axes, MOST_PERSONS)
        if size["V"] in known and size["C"] in (2, 3, 4) and size.get("M", 1) <= most:
            return axes
    return None


def points_of(array, place, axes: str = "") -> tuple[np.ndarray, np.ndarray | None]:
    """An array -> (points (T, M, V, C), score (T, M, V) or None). Four numbers per joint are x, y, z, score; of three the last
    may be a score. axes: order of the axes, '' to find it from the sizes."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BadPoses(f"{place}: holds {getattr(array, 'dtype', type(array).__name__)}, expected an array of numbers")
    if array.size == 0 or array.ndim < 2:
        raise BadPoses(f"{place}: an array {array.shape} has no frame of joints")
    array = array.astype(np.float64)
    if array.ndim == 2 and not axes and axes_of(array.shape) is None:
        V, C, skipped = joints.shape_of_columns(array, place)
        array, axes = array[:, skipped:].reshape(len(array), V, C), "TVC"
    axes = axes or axes_of(array.shape)
    if axes is None or len(axes) != array.ndim:
        raise BadPoses(
            f"{place}: an array {array.shape}; expected (T, V, C), (T, V, C, M) or (M, T, V, C) of 2 to 4 numbers per joint and "
            f"{', '.join(map(str, sorted(known_joints())))} joints; give another order with --axes"
        )
    for axis in "TM":
        if axis not in axes:
            array, axes = array[None], axis + axes
    values = array.transpose([axes.index(a) for a in "TMVC"])
    if values.shape[3] == 4:
        return values[..., :3], values[..., 3]
    if values.shape[3] == 3 and third_is_score(values):
        return values[..., :2], values[..., 2]
    return values, None


def read_npy(path, name: str, axes: str = "") -> list[Poses]:
    """An array of one clip, or an NTU clip saved as a dictionary."""
    content = io.BytesIO(read_bytes(path))
    try:
        objects = read_npy_header(content)[2].hasobject
    except (ValueError, EOFError, MemoryError, OverflowError, TypeError) as error:
        raise BadPoses(f"{path}: not a readable .npy array ({str(error)[:80]})") from None
    found = load_pickle(path, start=content.tell()) if objects else files.read_npy(path)
    if isinstance(found, np.ndarray) and found.dtype == object and found.ndim == 0:
        found = found.item()
    if isinstance(found, dict):
        return [ntu_dictionary(found, path, name)]
    if isinstance(found, np.ndarray) and found.dtype == object:
        raise BadPoses(f"{path}: holds Python objects; expected an array of numbers, or an NTU clip's dictionary")
    return [Poses(name, *points_of(found, path, axes))]


def ntu_dictionary(content: dict, path, name: str) -> Poses:
    """An NTU clip in the dictionary of many preparations: skel_body0 (T, 25, 3), skel_body1, ..., in metres."""
    bodies = sorted((k for k in content if re.fullmatch(r"skel_body\d+", str(k))), key=lambda k: int(k[9:]))
    if not bodies:
        raise BadPoses(
            f"{path}: a dictionary of {', '.join(map(str, list(content)[:5]))}; expected skel_body0 (T, 25, 3)"
        )
    arrays = []
    for key in bodies[:MOST_PERSONS]:
        array = content[key]
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.shape[1:] != (25, 3):
            raise BadPoses(f"{path}: {key} is {getattr(array, 'shape', type(array).__name__)}, expected (T, 25, 3)")
        arrays.append(array.astype(np.float64))
    frames = max(len(array) for array in arrays)
    points = np.full((frames, len(arrays), 25, 3), np.nan)
    for m, array in enumerate(arrays):
        points[: len(array), m] = array
    return Poses(name, points, layout="kinect_v2_25", units="m")


# --- .npz -----------------------------------------------------------------------------------------------------------


def read_npz(path, name: str, axes: str = "") -> list[Poses]:
    """One clip (keypoints, optionally scores, fps, layout, units, up, size), or a clip for each array."""
    with ArrayArchive(path, MAX_UNPACKED, together=True) as archive:
        arrays = {key: archive.read(key) for key in archive.names}
    if not arrays:
        raise BadPoses(f"{path}: the archive has no arrays")
    low = {key.lower(): value for key, value in arrays.items()}
    points_key = next((key for key in _POINT_KEYS if key in low), None)
    if points_key is not None and axes_of(np.shape(low[points_key])):
        return [_one_clip(low, points_key, path, name, axes)]
    if {"poses", "trans"} <= low.keys() or {"poses", "betas"} <= low.keys():
        raise BadPoses(
            f"{path}: holds parameters of a body model, expected joints; compute them with the body model first"
        )
    return [
        Poses(name if len(arrays) == 1 else f"{name}/{key}", *points_of(array, f"{path}:{key}", axes))
        for key, array in arrays.items()
    ]


def _stated(arrays: dict, key: str, kinds: str, size: int = 1) -> np.ndarray | None:
    """The values of an array with `size` values of these dtype kinds; None for any other."""
    array = arrays.get(key)
    return array.reshape(-1) if array is not None and array.size == size and array.dtype.kind in kinds else None


def _one_clip(low: dict, key: str, path, name: str, axes: str) -> Poses:
    points, score = points_of(low[key], f"{path}:{key}", axes)
    given = next((low[k] for k in _SCORE_KEYS if k in low), None)
    if given is not None:
        T, M, V = points.shape[:3]
        if given.dtype.kind not in "fiu" or given.size != T * M * V:
            raise BadPoses(f"{path}: scores {given.shape} do not match {T} frames, {M} persons and {V} joints")
        order = {(T, M, V): (0, 1, 2), (M, T, V): (1, 0, 2), (T, V, M): (0, 2, 1)}
        given = given.reshape(T, 1, V) if given.ndim == 2 else given.transpose(order.get(given.shape, (0, 1, 2)))
        score = given.astype(np.float64)
    texts = {
        k: None if (v := _stated(low, k, "US")) is None else str(v[0])[:80] for k in ("layout", "units", "up", "label")
    }
    fps, size = _stated(low, "fps", "fiu"), _stated(low, "size", "iu", 2)
    units = {"metres": "m", "m": "m", "mm": "mm", "pixels": "pixels", "shares": "shares"}
    return Poses(
        name,
        points,
        score,
        fps=float(fps[0]) if fps is not None and 0.5 <= fps[0] <= 1000 else None,
        layout=texts["layout"] if texts["layout"] in LAYOUTS else None,
        units=units.get(texts["units"]),
        up=texts["up"] if texts["up"] in UPS else None,
        size=None if size is None else tuple(map(int, size)),
        label=texts["label"],
    )


# --- pickles --------------------------------------------------------------------------------------------------------


def read_pickle(path, name: str, axes: str = "") -> list[Poses | Bad]:
    """The dict of split and annotations of MMAction2 / pyskl, a list of annotations, one annotation, or an array with the
    order `axes`."""
    content = load_pickle(path, MAX_UNPACKED)
    if isinstance(content, np.ndarray) and content.dtype != object:
        return [Poses(name, *points_of(content, path, axes))]
    if isinstance(content, dict) and "keypoint" in content:
        content = [content]
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        held = f" of {', '.join(map(str, list(content)[:5]))}"[:100] if isinstance(content, (dict, list)) else ""
        raise BadPoses(
            f"{path}: expected 'split' and 'annotations', or a list of annotations with keypoint, frame_dir and label; found "
            f"{type(content).__name__}{held}"
        )
    found = []
    for i, entry in enumerate(content):
        try:
            found.append(_annotation(entry, i, path, name, len(content)))
        except BadPoses as error:
            found.append(Bad(str(entry.get("frame_dir", f"{name}/{i:05d}"))[:200], str(error)))
    return found


def pickle_splits(path) -> dict[str, list[str]]:
    """The splits in a pickle, {} without."""
    content = load_pickle(path)
    splits = content.get("split") if isinstance(content, dict) else None
    if not isinstance(splits, dict):
        return {}
    texts = {k: v for k, v in splits.items() if isinstance(v, (list, tuple, np.ndarray))}
    return {str(k): [str(name) for name in v] for k, v in texts.items()}


def _annotation(entry: dict, i: int, path, name: str, count: int) -> Poses:
    own = entry.get("frame_dir", entry.get("filename"))
    own = str(own) if isinstance(own, str) and own else name if count == 1 else f"{name}/{i:05d}"
    place = f"{path}, clip {own}"
    keypoint = entry.get("keypoint", entry.get("keypoints"))
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu":
        raise BadPoses(f"{place}: 'keypoint' is not an array of numbers")
    points, score = points_of(keypoint[None] if keypoint.ndim == 3 else keypoint, place, "MTVC")
    if points.shape[3] not in (2, 3):
        raise BadPoses(f"{place}: expected keypoints (M, T, V, 2) or (M, T, V, 3), found {keypoint.shape}")
    given = entry.get("keypoint_score", entry.get("keypoint_scores"))
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiu":
        given = given[None] if given.ndim == 2 else given
        if given.shape != (points.shape[1], points.shape[0], points.shape[2]):
            raise BadPoses(f"{place}: keypoint_score {given.shape} does not match keypoint {keypoint.shape}")
        score = given.astype(np.float64).transpose(1, 0, 2)
    shape = entry.get("img_shape", entry.get("original_shape"))
    shape = tuple(shape) if isinstance(shape, (tuple, list, np.ndarray)) and len(shape) == 2 else None
    label = np.asarray(entry.get("label"))
    label = str(int(label.reshape(-1)[0])) if label.size == 1 and label.dtype.kind in "iu" else None
    flat = points.shape[3] == 2
    return Poses(
        own,
        points,
        score,
        label=label,
        layout="coco_17" if flat and points.shape[2] == 17 else None,
        units="pixels" if flat else None,
        size=(int(shape[1]), int(shape[0])) if shape and all(isinstance(s, (int, np.integer)) for s in shape) else None,
    )


# --- .pose ----------------------------------------------------------------------------------------------------------


def read_pose_format(path, name: str, axes: str = "") -> list[Poses]:
    """The clip of a .pose file, read with the package pose-format. axes: not used."""
    try:
        from pose_format import Pose
    except ImportError:
        raise UserError(f"{path}: .pose files need the package pose-format; type: pip install pose-format") from None
    content = read_bytes(path)
    try:
        pose = Pose.read(content)
        body, header = pose.body, pose.header
        data = np.ma.filled(np.ma.asarray(body.data, dtype=np.float64), np.nan)  # (T, M, V, C)
        score = np.asarray(body.confidence, dtype=np.float64)
        components = list(header.components)
        fps = float(body.fps)
    except Exception as error:  # the package may raise anything for a damaged file
        raise BadPoses(f"{path}: not a readable .pose file ({type(error).__name__}: {str(error)[:80]})") from None
    start, names, wanted = 0, None, slice(0, data.shape[2])
    for component in components:
        points = list(component.points)
        if joints.match_names(tuple(points)) and (names is None or "WORLD" in str(component.name).upper()):
            names, wanted = tuple(points), slice(start, start + len(points))
        start += len(points)
    if names is None:
        held = ", ".join(str(component.name) for component in components)
        raise BadPoses(f"{path}: holds {held[:100]}, none of which has the joints of a known layout")
    points = data[:, :, wanted, : min(3, data.shape[3])]
    dimensions = header.dimensions
    size = (int(dimensions.width), int(dimensions.height)) if dimensions.width > 1 else None
    return [Poses(name, points, score[:, :, wanted], fps=fps, joints=names, size=size)]
