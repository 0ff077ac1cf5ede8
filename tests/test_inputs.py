"""Files of data sets that are wrong: each is refused by one sentence that says what is wrong, or put right and counted."""

import pickle

import numpy as np
import pytest
import tiny_runs
from make_tiny import write_tiny_dataset
from programs import refused

from feeder.clips import load_clips
from utils.arrays import open_split
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    path = write_tiny_dataset(tmp_path, frames=120) / "xsub"
    (path / "preparation.json").unlink()  # as folders in the wild are
    return path


def pretrain(folder, more=""):
    root, name = folder.parent.parent, folder.parent.name
    return tiny_runs.pretrain(root, root / "run", f"--contrast-k 8 --topk 8 --max-steps 1 {more}", name)


def relabel(folder, change):
    file = folder / "train_label.pkl"
    names, labels = pickle.loads(file.read_bytes())  # written by this test: safe
    file.write_bytes(pickle.dumps(change(names, labels)))


def test_a_good_folder_runs(folder):
    assert pretrain(folder).status == 0


@pytest.mark.parametrize("name", ["train_data_joint.npy", "train_label.pkl", "train_num_frame.npy"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    refused(pretrain(folder), name, "missing")


def test_unknown_dataset(tmp_path):
    ran = tiny_runs.pretrain(tmp_path, tmp_path / "run", name="nobody")
    refused(ran, "'nobody'", "dataset.json")


def test_known_dataset_without_files_says_how_to_make_them(tmp_path):
    ran = tiny_runs.pretrain(tmp_path, tmp_path / "run", "--protocol cross_view", "ntu60")
    refused(ran, "xview/train_data_joint.npy", "python -m data_gen.prepare_ntu --dataset ntu60")


def test_unknown_protocol(folder):
    refused(pretrain(folder, "--protocol cross_setup"), "cross_setup", "cross_subject")


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((24, 3, 120, 25), np.float32), "(N, 3, T, 25, 2)"),
        (np.zeros((24, 3, 120, 17, 2), np.float32), "17, 2"),
        (np.zeros((24, 2, 120, 25, 2), np.float32), "2, 120"),
        (np.zeros((24, 3, 120, 25, 2), np.float64), "float64"),
        (np.zeros((23, 3, 120, 25, 2), np.float32), "disagree"),
    ],
)
def test_wrong_shapes(folder, array, words):
    np.save(folder / "train_data_joint.npy", array)
    refused(pretrain(folder), words)


def test_truncated_array(folder):
    file = folder / "train_data_joint.npy"
    file.write_bytes(file.read_bytes()[:5000])
    refused(pretrain(folder), "train_data_joint.npy")


def test_something_that_is_no_array(folder):
    (folder / "train_num_frame.npy").write_bytes(b"hello")
    refused(pretrain(folder), "train_num_frame.npy")


def test_labels_out_of_range(folder):
    relabel(folder, lambda names, labels: (names, [*labels[:-1], 4]))
    refused(pretrain(folder), "label 4", "0..3")


def test_negative_labels(folder):
    relabel(folder, lambda names, labels: (names, [*labels[:-1], -1]))
    refused(pretrain(folder), "label -1")


def test_whole_float_labels_are_accepted(folder):
    relabel(folder, lambda names, labels: (names, [float(x) for x in labels]))
    assert pretrain(folder).status == 0


def test_broken_float_labels(folder):
    relabel(folder, lambda names, labels: (names, [0.5, *labels[1:]]))
    refused(pretrain(folder), "0.5", "train_0000")


def test_counts_that_differ(folder):
    relabel(folder, lambda names, labels: (names[:-1], labels[:-1]))
    refused(pretrain(folder), "23 labels")


def test_malicious_labels(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (folder / "train_label.pkl").write_bytes(pickle.dumps(([Evil()], [0])))
    refused(pretrain(folder), "open", "malicious")
    assert not (tmp_path / "owned").exists()


def test_nan_names_the_clip(folder):
    data = np.load(folder / "train_data_joint.npy", mmap_mode="r+")
    data[5, 1, 3, 7, 0] = np.nan
    data.flush()
    refused(pretrain(folder), "train_0005", "frame 3", "not finite")


def test_nan_after_the_end_is_never_read(folder):
    data = np.load(folder / "train_data_joint.npy", mmap_mode="r+")
    data[5, :, 119] = np.nan
    data.flush()
    assert pretrain(folder).status == 0


def test_empty_clips_are_dropped_named_and_counted(folder):
    counts = np.load(folder / "train_num_frame.npy")
    counts[[2, 9]] = 0
    np.save(folder / "train_num_frame.npy", counts)
    ran = pretrain(folder)
    assert ran.status == 0 and "22 clips" in ran.out
    assert "2 clips of train have no frame and are left out: train_0002, train_0009" in ran.err


def test_counts_beyond_the_array_are_cut(folder):
    counts = np.load(folder / "train_num_frame.npy")
    counts[:] = 758
    np.save(folder / "train_num_frame.npy", counts)
    assert (open_split(folder, "train", 25, 2).num_frame == 120).all()


def test_fewer_clips_than_a_batch(folder):
    refused(pretrain(folder, "--batch-size 32 --contrast-k 64"), "24 clips", "--batch-size")


def test_batch_larger_than_the_queue(folder):
    refused(pretrain(folder, "--batch-size 16"), "--contrast-k 8")


def test_sidecar_that_contradicts_the_arrays(tmp_path):
    folder = write_tiny_dataset(tmp_path, frames=120) / "xsub"
    assert pretrain(folder).status == 0
    relabel(folder, lambda names, labels: (names, labels[::-1]))
    refused(pretrain(folder), "preparation.json", "checksum")


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": 4}', '{"classes": 4, "protocols": {"a": "../b"}}'])
def test_broken_description(folder, text):
    (folder.parent / "dataset.json").write_text(text)
    refused(pretrain(folder), "dataset.json")


def test_packed_clips_are_cached_and_remade_when_the_source_changes(folder):
    a = load_clips(folder, "train", 25, 2, 4)
    files = list((folder / ".packed").glob("*.npy"))
    assert len(files) == 1
    assert np.array_equal(a.frames.numpy(), load_clips(folder, "train", 25, 2, 4).frames.numpy())
    data = np.load(folder / "train_data_joint.npy")
    np.save(folder / "train_data_joint.npy", data * 2)
    b = load_clips(folder, "train", 25, 2, 4)
    np.testing.assert_allclose(b.frames, 2 * a.frames)
    assert len(list((folder / ".packed").glob("*.npy"))) == 1
    i = 3  # packed rows are the clip's frames, (V, C, M)
    rows = b.frames[b.offsets[i] : b.offsets[i] + b.num_frame[i]].numpy()
    np.testing.assert_array_equal(rows.transpose(2, 0, 1, 3), (data * 2)[i, :, : b.num_frame[i]])


def test_a_damaged_cache_is_made_again(folder):
    first = load_clips(folder, "train", 25, 2, 4).frames.clone()
    file = next((folder / ".packed").glob("*.npy"))
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(first, load_clips(folder, "train", 25, 2, 4).frames)


def test_placements_hold_the_same(folder):
    clips = load_clips(folder, "train", 25, 2, 4)
    for placement in ("auto", "device", "memory", "mapped"):
        assert np.array_equal(clips.to("cpu", placement).frames, clips.frames)


def test_a_folder_that_holds_no_frames(folder):
    np.save(folder / "train_num_frame.npy", np.zeros(24, np.int64))
    with pytest.raises(UserError, match="no clip with at least one frame"):
        open_split(folder, "train", 25, 2)
