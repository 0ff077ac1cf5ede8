"""Raw readers: the released selection, round trips, and a clear error or the right array for any damage."""

import re
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_gen.raw_files import Where, find_files, read_bytes
from data_gen.raw_ntu import parse, read_clip, select
from data_gen.raw_pku import Reading, instances, parse_frames, parse_labels
from data_gen.ui_prmd import read_packed
from tests import make_raw
from tests.make_tiny import side_by_side
from tests.slow_prepare import slow_bodies, slow_select
from utils.errors import UserError

ODDITIES = [make_raw.skeleton_text(make_raw.oddity(3, case)) for case in range(7)]
ONE = make_raw.skeleton_text([[(7, body)] for body in make_raw.person(1, 1, 2)]).encode()
PKU = make_raw.pku_text(np.stack([make_raw.person(1, 2, 3), make_raw.person(1, 3, 3)], axis=1)).encode()


def test_golden_bodies_equal_the_released_selection(golden):
    with np.load(golden / "bodies.npz") as file:
        for i, text in enumerate(file["text"]):
            clip = select(parse(str(text).encode(), "golden"))
            np.testing.assert_array_equal(clip, file[f"selected_{i}"])


@pytest.mark.parametrize("case", range(7))
def test_oddities_equal_the_slow_twin(case):
    clip = select(parse(ODDITIES[case].encode(), "odd"))
    np.testing.assert_array_equal(clip, slow_select(slow_bodies(ODDITIES[case])))


def test_written_coordinates_come_back_exactly():
    """Two people of UI-PRMD side by side, as `.skeleton` text and back."""
    packed = read_packed()
    clip = side_by_side(packed.clip("m01_s03_e01_cor"), packed.clip("m07_s01_e01_cor"))
    text = make_raw.skeleton_text(make_raw.clip_frames(clip)).encode()
    for selection in ("slot", "id"):
        np.testing.assert_array_equal(select(parse(text, "x"), selection), clip)


def test_windows_line_ends_and_a_missing_last_newline_are_fine():
    expected = select(parse(ONE, "x"))
    np.testing.assert_array_equal(select(parse(ONE.replace(b"\n", b"\r\n"), "x")), expected)
    np.testing.assert_array_equal(select(parse(ONE.rstrip(), "x")), expected)


def test_following_ids_keeps_a_person_together():
    a, b = make_raw.person(1, 1, 12) * 1.5, make_raw.person(1, 2, 12)
    # b is first in the file in every other frame; a is lost in the middle and comes back as somebody else
    frames = [[(1 if t < 6 else 3, a[t]), (2, b[t])][:: 1 if t % 2 else -1] for t in range(12)]
    recording = parse(make_raw.skeleton_text(frames).encode(), "x")
    clip = select(recording, "id")
    np.testing.assert_array_equal(clip, np.stack([a, b], axis=-1).transpose(2, 0, 1, 3))
    assert not np.array_equal(select(recording, "slot"), clip)


def test_ids_that_a_float_cannot_tell_apart_are_two_persons():
    a, b = make_raw.person(1, 1, 4), make_raw.person(1, 2, 4)
    number = make_raw.FIRST_ID
    assert float(number) == float(number + 1)
    frames = [[(number, a[t]), (number + 1, b[t])] for t in range(4)]
    assert select(parse(make_raw.skeleton_text(frames).encode(), "x"), "id")[..., 1].any()


LINES = ONE.split(b"\n")


def damaged(line: int, new: bytes) -> bytes:
    return b"\n".join([*LINES[:line], new, *LINES[line + 1 :]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "x, line 1: expected the number of frames"),
        (b"two\n", "x, line 1: .*whole number.*'two'"),
        (b"-1\n", "x, line 1"),
        (b"999999999\n", "x, line 1: 999999999 frames .* at most"),
        (b"3" + ONE[1:], f"x, line {len(LINES)}: expected the number of bodies in frame 3 of 3"),
        (b"1" + ONE[1:], "x, line 30: the file continues after its 1 frames"),
        (ONE[:-400], "x, line 5[0-9]: .*12 values"),
        (damaged(3, b"20"), "x, line 4: expected 25 joints, found 20"),
        (damaged(2, b"1 2 3"), "x, line 3: .*10 values.*3"),
        (damaged(2, b"x 0 1 1 1 1 0 0.02 -0.03 2"), "x, line 3: .*whole number.*'x'"),
        (damaged(9, b"1 2 3"), "x, line 10: .*12 values.*3 values"),
        (damaged(9, b"1 2 x 4 5 6 7 8 9 10 11 12"), "x, line 10: 'x' is not a coordinate"),
        (damaged(9, b"1 nan 3 4 5 6 7 8 9 10 11 12"), "x, line 10: 'nan' is not a coordinate"),
        (damaged(40, b"1 1e30 3 4 5 6 7 8 9 10 11 12"), "x, line 41: '1e30' is not a coordinate"),
        (damaged(40, b"1 1_0 3 4 5 6 7 8 9 10 11 12"), "x, line 41: '1_0' is not a coordinate"),
        (PKU, "x, line 1: expected the number of frames"),
        (b"PK\x03\x04" + bytes(range(256)), "x, line 1"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}\n" + bytes(99), "x, line 1"),
    ],
)
def test_damage_is_named_with_its_line(text, message):
    with pytest.raises(UserError, match=message):
        parse(text, "x")


def test_unused_columns_may_hold_anything():
    np.testing.assert_array_equal(parse(re.sub(rb"255\.1 203\.7", b"-Infinity NaN", ONE), "x").xyz, parse(ONE, "x").xyz)


def edits(text: bytes):
    """Small edits of a text: a cut, bytes exchanged or inserted, a line dropped or doubled."""
    lines = text.split(b"\n")
    junk = st.one_of(st.binary(max_size=6), st.sampled_from([b" ", b"\n", b"0", b"-", b"e", b"_", b"1e9", b"nan"]))
    return st.one_of(
        st.integers(0, len(text)).map(lambda n: text[:n]),
        st.tuples(st.integers(0, len(text)), st.integers(0, 3), junk).map(
            lambda e: text[: e[0]] + e[2] + text[e[0] + e[1] :]
        ),
        st.integers(0, len(lines) - 1).map(lambda n: b"\n".join(lines[:n] + lines[n + 1 :])),
        st.integers(0, len(lines) - 1).map(lambda n: b"\n".join(lines[:n] + lines[n : n + 1] + lines[n:])),
        st.binary(max_size=200),
    )


@given(edits(ONE))
@example(ONE[:-1])
@settings(max_examples=400, deadline=None)
def test_fuzzed_skeleton_text_gives_an_error_or_what_the_slow_reader_gives(text):
    try:
        clip = select(parse(text, "fuzz"))
    except UserError as error:
        assert str(error).startswith("fuzz, line ")
        return
    lines = [line.split() for line in text.split(b"\n")]  # the slow reader converts what the fast one passes over, too
    read = {12: 3, 10: 1}  # how many words of a line of so many count
    plain = b"\n".join(
        b" ".join(words[: read.get(len(words))] + [b"0"] * 9) if words[1:] else b"".join(words) for words in lines
    )
    assert clip.shape[0] == 3 and np.isfinite(clip).all()
    np.testing.assert_array_equal(clip, slow_select(slow_bodies(plain.decode("latin1"))))


@given(edits(PKU))
@settings(max_examples=400, deadline=None)
def test_fuzzed_pku_text_gives_an_error_or_the_right_array(text):
    try:
        frames = parse_frames(text, "fuzz")
    except UserError as error:
        assert str(error).startswith("fuzz, line ")
        return
    expected = [[float(word) for word in line.split()] for line in text.rstrip().split(b"\n")]
    np.testing.assert_array_equal(frames.reshape(len(expected), 150), np.array(expected, dtype=np.float32))


LABELS = make_raw.pku_label_text([(1, 10, 20, 1), (51, 30, 44, 0)]).encode()


@given(edits(LABELS))
@settings(max_examples=400, deadline=None)
def test_fuzzed_labels_give_an_error_or_the_right_rows(text):
    try:
        rows = parse_labels(text, "fuzz")
    except UserError as error:
        assert str(error).startswith("fuzz, line ")
        return
    expected = [tuple(map(int, line.split(b","))) for line in text.split(b"\n") if line.strip()]
    assert [(r.number, r.start, r.end, r.confidence) for r in rows] == expected


def test_pku_frames_come_back_exactly():
    frames = np.stack([make_raw.person(4, 2, 9), make_raw.person(4, 3, 9)], axis=1)
    np.testing.assert_array_equal(parse_frames(make_raw.pku_text(frames).encode(), "x"), frames)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "x, line 1: the file is empty"),
        (b"\n".join([PKU.split(b"\n")[0], b"1 2 3"]), "x, line 2: expected 150 numbers, found 3"),
        (PKU.replace(PKU.split(b"\n")[1].split()[70], b"oops"), "x, line 2: 'oops' is not a coordinate"),
        (PKU.replace(PKU.split(b"\n")[1].split()[70], b"nan"), "x, line 2: 'nan' is not a coordinate"),
        (ONE, "x, line 1: expected 150 numbers, found 1"),
    ],
)
def test_damaged_pku_text_is_named_with_its_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_frames(text, "x")


def test_both_indexings_and_dirty_rows():
    rows = parse_labels(b"3,10,20,2\n1,40,30,1\n51,90,105,0\n2,200,210,1\n\n7,0,5,0\n", "x")
    found, notes = instances("0043-L", rows, 100, Reading())
    assert [(i.name, i.number, i.start, i.end) for i in found] == [
        ("0043-L_001", 2, 10, 20),
        ("0043-L_003", 50, 90, 100),
        ("0043-L_006", 6, 0, 5),
    ]
    assert [note.split(":")[0] for note in notes] == ["0043-L.txt line 2", "0043-L.txt line 3", "0043-L.txt line 4"]
    found, notes = instances("0043-L", rows, 100, Reading(first_frame=1, swap=True, min_confidence=1))
    assert [(i.number, i.start, i.end) for i in found] == [(2, 9, 20), (0, 29, 40)]
    with pytest.raises(UserError, match="class 51, expected 0..50"):
        instances("0043-L", rows, 100, Reading(first_class=0))


def test_folders_and_archives_hold_the_same(tmp_path):
    names = make_raw.ntu_names(8)
    folder, archive = make_raw.make_ntu(tmp_path / "a", names), make_raw.make_ntu(tmp_path / "b", names, archive=True)
    one, two = find_files([folder], ".skeleton"), find_files([archive], ".skeleton")
    assert list(one) == list(two) == names
    for name in names:
        assert read_bytes(one[name]) == read_bytes(two[name])
    assert list(find_files([tmp_path / "b"], ".skeleton")) == names  # a folder of archives
    assert list(find_files([tmp_path / "a"], ".skeleton")) == names  # files at any depth
    with pytest.raises(UserError, match="appears twice"):
        find_files([folder, archive], ".skeleton")


def test_missing_empty_and_broken_places_are_sentences(tmp_path):
    with pytest.raises(UserError, match="there is no such folder or archive"):
        find_files([tmp_path / "none"], ".skeleton")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no .skeleton file in it"):
        find_files([tmp_path / "empty"], ".skeleton")
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(UserError, match="expected a folder or a zip archive"):
        find_files([tmp_path / "text.zip"], ".skeleton")
    archive = make_raw.make_ntu(tmp_path, make_raw.ntu_names(2), archive=True)
    content = bytearray(archive.read_bytes())
    content[200:260] = bytes(60)  # within the first compressed file
    archive.write_bytes(content)
    where = next(iter(find_files([archive], ".skeleton").values()))
    with pytest.raises(UserError, match="not a readable file of its archive"):
        read_bytes(where)
    with pytest.raises(UserError, match="there is no such file"):
        read_clip(Where(str(tmp_path / "none.skeleton")))


def test_a_crafted_archive_cannot_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("data_gen.raw_files.MAX_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("S001C001P001R001A001.skeleton", bytes(2**22))
    where = next(iter(find_files([tmp_path / "bomb.zip"], ".skeleton").values()))
    with pytest.raises(UserError, match="longer than 1 MB"):
        read_bytes(where)
