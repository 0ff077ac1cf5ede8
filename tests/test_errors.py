"""What the machine refuses is a sentence that names the path, and status 2; only what is a bug keeps its traceback."""

import errno
import os

import numpy as np
import pytest
import torch
from make_checkpoint import write_pretrained
from make_tiny import write_tiny_dataset
from programs import call, refused

from tools import convert_checkpoint, export, extract_features, report, visualize
from utils import checkpoint as files
from utils.errors import describe_os_error
from utils.files import write_json


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, a checkpoint, a run, a clip, and a file where the tests would like a folder."""
    root = tmp_path_factory.mktemp("errors")
    write_tiny_dataset(root, frames=70)
    write_pretrained(root / "c.pth.tar")
    (root / "run").mkdir()
    write_json(root / "run" / "result.json", {"task": "retrieval"})
    (root / "clips").mkdir()
    np.save(root / "clips" / "a.npy", np.random.default_rng(0).normal(size=(9, 25, 3)))
    (root / "file").write_text("a file")
    return root


PROGRAMS = [
    (visualize, "tiny --data-root {0} --clips 1 --poses 2", ".png"),
    (visualize, "tiny --data-root {0} --clips 1", ".gif"),
    (report, "{0}/run", ".html"),
    (extract_features, "--pretrained {0}/c.pth.tar --input {0}/clips --threads 1", ""),
    (export, "{0}/c.pth.tar --threads 1", ".pt2"),
    (convert_checkpoint, "{0}/c.pth.tar --to encoder", ".pth"),
]


@pytest.mark.parametrize("program, words, suffix", PROGRAMS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_an_output_that_cannot_be(place, program, words, suffix):
    words = words.format(place)
    refused(call(program.main, f"{words} --output {place}/file/x{suffix}"), f"{place}/file", "file")
    refused(call(program.main, f"{words} --output {place}/{'n' * 300}{suffix or '.features'}"), "too long")
    folder = place / f"folder{suffix}"
    folder.mkdir(exist_ok=True)
    (folder / "something").touch()
    refused(call(program.main, f"{words} --output {folder}"), str(folder))
    left = [p.name for p in place.rglob(".*") if p.name != ".packed"]
    assert not left and (place / "file").read_text() == "a file"


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOENT, "no such file"),
        (errno.ENOSPC, "no space"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
    ],
)
def test_an_error_of_the_system_is_a_sentence(number, words):
    def main(_):
        raise OSError(number, os.strerror(number), "some/path")

    refused(call(main, ""), "some/path", words)


def test_a_rename_names_what_it_would_have_made(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        os.replace(tmp_path / "file", tmp_path / "folder")
    assert describe_os_error(caught.value).startswith(f"{tmp_path}/folder: is a folder")


@pytest.mark.parametrize("program, words, suffix", PROGRAMS[3:], ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_checkpoint_gives_no_features(place, tmp_path, program, words, suffix, value):
    """Every number of it would be NaN: a sentence, not a file full of them."""
    content = files.load(place / "c.pth.tar")
    content["state_dict"]["encoder_q.encoder.gru.weight_hh_l0"][0, 0] = value
    torch.save(content, place / "diverged.pth.tar")
    words = words.format(place).replace("c.pth.tar", "diverged.pth.tar")
    refused(call(program.main, f"{words} --output {tmp_path}/x{suffix}"), "weight_hh_l0 is not finite", "diverged")
    assert not list(tmp_path.iterdir())


def test_a_bug_keeps_its_traceback_and_says_what_to_report(monkeypatch):
    def main(_):
        raise OSError(errno.EBADF, "bad file descriptor")

    ran = call(main, "")
    assert ran.status == 1 and "Traceback" in ran.err and "bad file descriptor" in ran.err
    assert "open an issue" in ran.err and f"torch {torch.__version__.split('+')[0]}" in ran.err and "numpy" in ran.err


def test_a_short_sentence_shows_where_it_comes_from_when_asked(monkeypatch):
    def main(_):
        open("a/file/of/ours")

    ran = call(main, "")
    refused(ran, "a/file/of/ours", "no such file")
    monkeypatch.setenv("PCM3_DEBUG", "1")
    ran = call(main, "")
    assert ran.status == 2 and "Traceback" in ran.err and 'open("a/file/of/ours")' in ran.err
    assert ran.err.splitlines()[-1].startswith("error: a/file/of/ours")
