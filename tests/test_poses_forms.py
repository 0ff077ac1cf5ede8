"""Real clips in every file form and layout come back without a flag: layout, frames, coordinates."""

import numpy as np
import pose_files as pf
import pytest
from programs import refuses

from data_gen.poses.record import Bad
from data_gen.poses.survey import PoseOptions, survey
from utils.errors import UserError
from utils.skeleton import LAYOUTS

MILLIMETRE, PIXEL = 1e-3, 0.01
CLIPS = pf.real_clips(classes=2, each=2, frames=12)


def space(layout):
    """What must come back of a 3-D clip: the coordinates in metres."""
    return lambda name: pf.in_layout(CLIPS[name][1], layout)


def plane(layout):
    """What must come back of a 2-D clip: pixels with y up, and no depth."""

    def expected(name):
        flat = pf.pixels(pf.in_layout(CLIPS[name][1], layout)) * [1, -1]
        return np.concatenate([flat, np.zeros_like(flat[..., :1])], axis=-1)

    return expected


def each(write):
    """write(path without ending, clip) for every clip, in folders of their classes."""
    for name, (label, clip) in CLIPS.items():
        write(label, name, clip)


def read(source, **options):
    """(what was found, name -> coordinates (T, V, 3) of the first person)."""
    found = survey(source, PoseOptions(**options))
    clips = [clip for entry in found.entries for clip in found.reader(entry)]
    bad = [clip for clip in clips if isinstance(clip, Bad)]
    assert not bad, bad
    assert all(len(clip.array) == 1 for clip in clips)
    return found, {clip.name.rsplit("/", 1)[-1]: clip.array[0] for clip in clips}


def assert_read(source, layout, expected, tolerance=MILLIMETRE, form=None):
    found, clips = read(source)
    assert found.reader.layout.name == layout, found.lines
    if form:
        assert found.forms == {form: len(CLIPS)}
    assert clips.keys() == CLIPS.keys()
    for name, got in clips.items():
        want = expected(name)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=tolerance)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_as_arrays(tmp_path, layout):
    """Metres, millimetres with y down, 2-D with scores, and a table without names: nothing but the bodies tells."""
    each(lambda k, n, c: save(tmp_path / "m" / k / f"{n}.npy", pf.in_layout(c, layout)))
    assert_read(tmp_path / "m", layout, space(layout), form="npy")
    toes = (
        any(word in name for name in LAYOUTS[layout].names for word in ("left foot", "left big toe"))
        and layout != "sbu_15"
    )
    y_down = (
        [1, -1, 1] if toes else [-1, -1, 1]
    )  # y turned alone is a mirror, which toes tell; else a camera is taken for granted
    each(lambda k, n, c: save(tmp_path / "mm" / k / f"{n}.npy", 1000 * pf.in_layout(c, layout) * y_down))
    assert_read(tmp_path / "mm", layout, space(layout))
    each(lambda k, n, c: save(tmp_path / "flat" / k / f"{n}.npy", pf.with_score(pf.pixels(pf.in_layout(c, layout)))))
    assert_read(tmp_path / "flat", layout, plane(layout), PIXEL)
    each(lambda k, n, c: pf.write_table(tmp_path / "csv" / k / f"{n}.csv", pf.in_layout(c, layout), None))
    assert_read(tmp_path / "csv", layout, space(layout), form="table")


@pytest.mark.parametrize("layout", ["openpose_25", "openpose_18"])
@pytest.mark.parametrize("own_folder", [True, False])
def test_openpose(tmp_path, layout, own_folder):
    def write(k, n, c):
        folder = tmp_path / k / n if own_folder else tmp_path / k
        pf.write_openpose(folder, n, pf.pixels(pf.in_layout(c, layout)), first=17)

    each(write)
    assert_read(tmp_path, layout, plane(layout), PIXEL, "openpose")


@pytest.mark.parametrize("layout", ["coco_17", "halpe_26"])
def test_alphapose_and_mmpose(tmp_path, layout):
    each(lambda k, n, c: pf.write_alphapose(tmp_path / "a" / k / f"{n}.json", pf.pixels(pf.in_layout(c, layout))))
    assert_read(tmp_path / "a", layout, plane(layout), PIXEL, "alphapose")
    names = LAYOUTS[layout].names
    each(lambda k, n, c: pf.write_mmpose(tmp_path / "m" / k / f"{n}.json", pf.pixels(pf.in_layout(c, layout)), names))
    assert_read(tmp_path / "m", layout, plane(layout), PIXEL, "mmpose")


def test_mmpose_in_space_and_azure_kinect_and_ntu(tmp_path):
    each(lambda k, n, c: pf.write_mmpose(tmp_path / "m" / k / f"{n}.json", pf.in_layout(c, "h36m_17")))
    assert_read(tmp_path / "m", "h36m_17", space("h36m_17"), form="mmpose")
    each(lambda k, n, c: pf.write_azure(tmp_path / "a" / k / f"{n}.json", pf.in_layout(c, "azure_kinect_32"), fps=15))
    assert_read(tmp_path / "a", "azure_kinect_32", space("azure_kinect_32"), form="azure_kinect")
    assert "frames a second: 15" in survey(tmp_path / "a").lines
    each(lambda k, n, c: pf.write_ntu_dictionary(tmp_path / "n" / k / f"{n}.skeleton.npy", c))
    assert_read(tmp_path / "n", "kinect_v2_25", space("kinect_v2_25"), form="npy")


@pytest.mark.parametrize("style", ["named", "camel", "upper", "numbered", "x_first"])
def test_mediapipe_tables(tmp_path, style):
    """Columns by name in any case and order, or by number, beside a column of frames."""

    def write(k, n, c):
        values = pf.with_score(pf.camera(pf.in_layout(c, "mediapipe_33")))
        order = np.random.default_rng(0).permutation(132) if style != "camel" else None
        columns = pf.columns_of("mediapipe_33", style)
        pf.write_table(tmp_path / k / f"{n}.csv", values, columns, order=order, extra={"frame": range(len(values))})

    each(write)
    assert_read(tmp_path, "mediapipe_33", space("mediapipe_33"), form="table")


def test_mediapipe_with_a_header_of_numbers_and_as_array(tmp_path):
    def write(k, n, c):
        values = pf.with_score(pf.camera(pf.in_layout(c, "mediapipe_33")))
        pf.write_table(tmp_path / "csv" / k / f"{n}.csv", values, [str(i) for i in range(132)])
        lines = (tmp_path / "csv" / k / f"{n}.csv").read_text().splitlines()
        indexed = [f"{'' if i == 0 else i - 1},{line}" for i, line in enumerate(lines)]  # as pandas writes it
        (tmp_path / "pandas" / k).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pandas" / k / f"{n}.csv").write_text("\n".join(indexed) + "\n")
        save(tmp_path / "npy" / k / f"{n}.npy", values)
        save(tmp_path / "face" / k / f"{n}.npy", np.concatenate([values, np.zeros((len(values), 468, 4))], axis=1))

    each(write)
    for kind in ("csv", "pandas", "face"):
        assert_read(tmp_path / kind, "mediapipe_33", space("mediapipe_33"))
    assert_read(tmp_path / "npy", "mediapipe_33", space("mediapipe_33"))


@pytest.mark.parametrize("style", ["list", "lists", "named", "landmarks", "world", "keypoints", "object"])
def test_mediapipe_json(tmp_path, style):
    def write(k, n, c):
        values = pf.with_score(pf.camera(pf.in_layout(c, "mediapipe_33")))
        pf.write_frames(tmp_path / k / f"{n}.json", values, "mediapipe_33", style)

    each(write)
    assert_read(tmp_path, "mediapipe_33", space("mediapipe_33"), form="frames")


def test_movenet_and_shares_of_the_picture(tmp_path):
    def write(k, n, c):
        flat = pf.pixels(pf.in_layout(c, "coco_17"))
        pf.write_frames(tmp_path / "px" / k / f"{n}.json", pf.with_score(flat), "coco_17", "movenet")
        whole = pf.pixels(pf.in_layout(c, "mediapipe_33")) / pf.PICTURE
        depth = np.zeros_like(whole[..., :1])
        values = pf.with_score(np.concatenate([whole, depth], axis=-1))
        pf.write_frames(tmp_path / "share" / k / f"{n}.json", values, "mediapipe_33", "keypoints")

    each(write)
    assert_read(tmp_path / "px", "coco_17", plane("coco_17"), PIXEL, "frames")
    found, clips = read(tmp_path / "share", dimensions=2)
    assert "1920 x 1080 is assumed" in "\n".join(found.lines)
    for name, got in clips.items():  # back in pixels, up to the six decimals of the file
        np.testing.assert_allclose(got, plane("mediapipe_33")(name), atol=0.01)
    found, clips = read(tmp_path / "share")
    assert found.reader.space.dimensions == 3 and "trunk of 0.5 m" in "\n".join(found.lines)
    _, narrow = read(tmp_path / "share", size=(1080, 1920), dimensions=2)
    name = next(iter(CLIPS))
    np.testing.assert_allclose(narrow[name][..., 0] * 1920 / 1080, plane("mediapipe_33")(name)[..., 0], atol=0.02)


def test_other_programs_json(tmp_path):
    """Kinetics-skeleton's shares, Ultralytics' columns, MMPose's older list of persons a frame."""

    def write(k, n, c):
        flat = pf.pixels(pf.in_layout(c, "openpose_18")) / pf.PICTURE
        data = [
            {"frame_index": t + 1, "skeleton": [{"pose": f.round(5).ravel().tolist(), "score": [0.8] * 18}]}
            for t, f in enumerate(flat)
        ]
        pf._dump(tmp_path / "kinetics" / k / f"{n}.json", {"data": data, "label": f"class {k}", "label_index": 3})
        flat = pf.pixels(pf.in_layout(c, "coco_17"))
        people = [[{"name": "person", "keypoints": {"x": f[:, 0].tolist(), "y": f[:, 1].tolist(), "visible": [0.9] * 17}}]
                  for f in flat]  # fmt: skip
        pf._dump(tmp_path / "ultralytics" / k / f"{n}.json", people)
        people = [[{"keypoints": f.tolist(), "keypoint_scores": [0.9] * 17, "bbox": [[1, 2, 3, 4]]}] for f in flat]
        pf._dump(tmp_path / "mmpose" / k / f"{n}.json", people)

    each(write)
    found, clips = read(tmp_path / "kinetics", size=pf.PICTURE)
    assert found.reader.layout.name == "openpose_18" and found.forms == {"kinetics": 4}
    for name, got in clips.items():
        np.testing.assert_allclose(got, plane("openpose_18")(name), atol=0.02)
    assert {c.label for e in found.entries for c in found.reader(e)} == {"class m01", "class m02"}
    for form in ("ultralytics", "mmpose"):
        assert_read(tmp_path / form, "coco_17", plane("coco_17"), PIXEL)


@pytest.mark.parametrize("named", [True, False])
def test_a_row_for_each_joint(tmp_path, named):
    """A long table: frame, joint by name or number, x, y, z, visibility."""

    def write(k, n, c):
        values = pf.with_score(pf.camera(pf.in_layout(c, "mediapipe_33")))
        names = [w.upper().replace(" ", "_") for w in LAYOUTS["mediapipe_33"].names]
        rows = [
            f"{t},{names[v] if named else v},{','.join(f'{x:.6f}' for x in values[t, v])}"
            for t in range(12)
            for v in range(33)
        ]
        (tmp_path / k).mkdir(exist_ok=True)
        (tmp_path / k / f"{n}.csv").write_text("\n".join(["frame,landmark,x,y,z,visibility", *rows]))

    each(write)
    assert_read(tmp_path, "mediapipe_33", space("mediapipe_33"), form="table")


def test_numbers_of_joints_from_one(tmp_path):
    columns = [f"{a}{v}" for v in range(1, 34) for a in ("x", "y", "z", "v")]

    def write(k, n, c):
        values = pf.with_score(pf.camera(pf.in_layout(c, "mediapipe_33")))
        pf.write_table(tmp_path / k / f"{n}.csv", values, columns, extra={"class": [k] * 12})

    each(write)
    assert_read(tmp_path, "mediapipe_33", space("mediapipe_33"))


def test_pickles(tmp_path):
    flat = {n: (0, pf.pixels(pf.in_layout(c, "coco_17"))) for n, (_, c) in CLIPS.items()}
    pf.write_pickle(tmp_path / "flat.pkl", flat)
    assert_read(tmp_path / "flat.pkl", "coco_17", plane("coco_17"), 0.51)  # float16 has half a pixel there
    pf.write_pickle(tmp_path / "bare.pkl", flat, bare=True)
    assert_read(tmp_path / "bare.pkl", "coco_17", plane("coco_17"), 0.51)
    pf.write_pickle(tmp_path / "space.pkl", {n: (0, c) for n, (_, c) in CLIPS.items()}, bare=True)
    assert_read(tmp_path / "space.pkl", "kinect_v2_25", space("kinect_v2_25"))


def test_archives(tmp_path):
    """All clips in one .npz, or a clip with what else is known of it."""
    np.savez_compressed(tmp_path / "all.npz", **{n: pf.in_layout(c, "smpl_22") for n, (_, c) in CLIPS.items()})
    assert_read(tmp_path / "all.npz", "smpl_22", space("smpl_22"), form="npz")
    (tmp_path / "one").mkdir()
    for name, (_, clip) in CLIPS.items():
        points = pf.camera(pf.in_layout(clip, "mediapipe_33"))
        np.savez(
            tmp_path / "one" / f"{name}.npz",
            keypoints=points, scores=pf.scores(points), fps=25.0, layout="mediapipe_33", units="metres",
        )  # fmt: skip
    assert_read(tmp_path / "one", "mediapipe_33", space("mediapipe_33"))
    assert "frames a second: 25" in survey(tmp_path / "one").lines


@pytest.mark.parametrize("axes", ["CTV", "TVCM", "MTVC", "CTVM"])
def test_other_orders_of_axes(tmp_path, axes):
    def write(k, n, c):
        array, have = (c, "TVC") if "M" not in axes else (c[..., None], "TVCM")
        save(tmp_path / k / f"{n}.npy", array.transpose([have.index(a) for a in axes]))

    each(write)
    assert_read(tmp_path, "kinect_v2_25", space("kinect_v2_25"))


def test_pose_format(tmp_path):
    """Files of the package pose-format, where it is installed."""
    pose_format = pytest.importorskip("pose_format")
    header = pytest.importorskip("pose_format.pose_header")
    body = pytest.importorskip("pose_format.numpy")
    names = [n.upper().replace(" ", "_") for n in LAYOUTS["mediapipe_33"].names]
    for name, (label, clip) in CLIPS.items():
        points = pf.camera(pf.in_layout(clip, "mediapipe_33"))
        component = header.PoseHeaderComponent("POSE_WORLD_LANDMARKS", names, [], [], "XYZC")
        about = header.PoseHeader(0.2, header.PoseHeaderDimensions(640, 480, 0), [component])
        pose = pose_format.Pose(about, body.NumPyPoseBody(30, points[:, None], pf.scores(points)[:, None]))
        (tmp_path / label).mkdir(exist_ok=True)
        with open(tmp_path / label / f"{name}.pose", "wb") as file:
            pose.write(file)
    assert_read(tmp_path, "mediapipe_33", space("mediapipe_33"), form="pose")


def test_root_centred_poses_keep_their_root(tmp_path):
    """A root at zero in every frame is no joint that was not seen, and all coordinates stay."""

    def centred(clip):
        points = pf.in_layout(clip, "h36m_17")
        return points - points[:, :1]

    each(lambda k, n, c: save(tmp_path / k / f"{n}.npy", centred(c)))
    _, clips = read(tmp_path)
    for name, got in clips.items():
        np.testing.assert_allclose(got, centred(CLIPS[name][1]), atol=2e-6)
        assert (got != 0).any(-1).all()  # exactly zero would mean not seen


def test_z_up_is_turned(tmp_path):
    """AMASS has z up: x stays, z becomes y; nothing is mirrored."""
    turned = lambda c: pf.in_layout(c, "smpl_22") @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T  # noqa: E731
    each(lambda k, n, c: save(tmp_path / k / f"{n}.npy", turned(c)))
    assert_read(tmp_path, "smpl_22", space("smpl_22"))


def test_to_another_layout_and_what_is_said(tmp_path):
    each(lambda k, n, c: pf.write_azure(tmp_path / k / f"{n}.json", pf.in_layout(c, "azure_kinect_32")))
    found, clips = read(tmp_path, target="kinect_v2_25")
    assert "converted: azure_kinect_32 -> kinect_v2_25" in "\n".join(found.lines)
    for name, got in clips.items():  # limbs are there in both
        np.testing.assert_allclose(got[:, 4:7], CLIPS[name][1][:, 4:7], atol=MILLIMETRE)


def test_what_flags_overrule(tmp_path):
    each(lambda k, n, c: save(tmp_path / k / f"{n}.npy", c * [1, -1, 1]))
    name = next(iter(CLIPS))
    clip = CLIPS[name][1]
    _, clips = read(tmp_path)  # mirrored, found by the toes
    np.testing.assert_allclose(clips[name], clip, atol=MILLIMETRE)
    _, clips = read(tmp_path, mirror=False)
    np.testing.assert_allclose(clips[name], clip * [-1, 1, 1], atol=MILLIMETRE)
    _, clips = read(tmp_path, up="y", mirror=False)
    np.testing.assert_allclose(clips[name], clip * [1, -1, 1], atol=MILLIMETRE)
    _, clips = read(tmp_path, units="cm")
    np.testing.assert_allclose(clips[name], clip / 100, atol=MILLIMETRE)
    with pytest.raises(UserError, match="no clip of the sample fits layout coco_17"):
        survey(tmp_path, PoseOptions(layout="coco_17"))
    with pytest.raises(UserError, match="--format 'xml' is not known"):
        survey(tmp_path, PoseOptions(form="xml"))


def test_what_does_not_tell_is_asked_for(tmp_path):
    """25 joints of noise are no layout's; 21 are none at all; a folder of videos is told the way."""
    rng = np.random.default_rng(0)
    save(tmp_path / "noise" / "a.npy", rng.normal(size=(20, 25, 3)))
    with pytest.raises(UserError, match="25 joints are .* give --layout"):
        survey(tmp_path / "noise")
    save(tmp_path / "odd" / "a.npy", rng.normal(size=(20, 21, 3)))
    with pytest.raises(UserError, match=r"an array \(20, 21, 3\)"):
        survey(tmp_path / "odd")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    with refuses("1 videos", "python -m data_gen.from_video"):
        survey(tmp_path / "videos")
    with pytest.raises(UserError, match="there is no such file or folder"):
        survey(tmp_path / "nowhere")
