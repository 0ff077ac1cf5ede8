"""Small files that ask for much memory: zip archives of zeros, headers that lie, pickles of a few bytes.

Run with a folder, it reads each of them with the reader of its kind and prints what came of it and the peak of memory."""

import io
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BLOCK = 2**20


def npy_header(shape, dtype: str = "<f4") -> bytes:
    """The header of a .npy file."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _deflated(start: bytes, zeros: int) -> bytes:
    """`start` and so many zeros, deflated: one compressed block of zeros, repeated."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = pack.compress(start + bytes(zeros % BLOCK)) + pack.flush(zlib.Z_FULL_FLUSH)
    block = pack.compress(bytes(BLOCK)) + pack.flush(zlib.Z_FULL_FLUSH)
    return first + block * (zeros // BLOCK) + pack.flush(zlib.Z_FINISH)


def write_bomb(path, members: dict[str, bytes], zeros: int) -> None:
    """A zip archive whose members begin with the given bytes and go on with so many zeros (together below 4 GB each)."""
    body, directory = b"", b""
    for name, start in members.items():
        packed, plain = _deflated(start, zeros), name.encode()
        sizes = struct.pack("<HHHIIIHH", 8, 0, 33, 0, len(packed), len(start) + zeros, len(plain), 0)
        directory += (
            b"PK\1\2" + struct.pack("<HHH", 20, 20, 0) + sizes + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + plain
        )
        body += b"PK\3\4" + struct.pack("<HH", 20, 0) + sizes + plain + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    Path(path).write_bytes(body + directory + b"PK\5\6" + end)


class Calls:
    """Pickles as the call of a function that the readers know."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_bombs(folder: Path) -> None:
    """One of each kind, named by the reader that must refuse it."""
    clip = 3_900_000_000
    write_bomb(folder / "clip.npz", {"a.npy": npy_header((clip // 300, 25, 3))}, clip)
    write_bomb(
        folder / "scores.npz", {f"{n}.npy": npy_header((clip,), "|i1") for n in ("names", "labels", "scores")}, clip
    )
    write_bomb(folder / "checkpoint.pth", {"archive/data.pkl": b"", "archive/data/0": b""}, 2_200_000_000)
    (folder / "clip.npy").write_bytes(npy_header((10**10, 25, 3)) + bytes(10**6))
    pickles = {
        "bytes": pickle.dumps(Calls(bytearray, 10**10)),
        "array": pickle.dumps(Calls(np.ndarray, (10**10,))),
        "sets": b"\x80\x04(" + b"\x8f" * 6 * 10**6 + b"l.",
        "table": b"\x80\x02]r\xff\xff\xff\x7f.",
    }
    for name, content in pickles.items():
        (folder / f"{name}.pkl").write_bytes(content)
    shared = [1] * 10
    for _ in range(12):
        shared = [shared] * 10
    (folder / "labels.pkl").write_bytes(pickle.dumps((["a"] * 10, shared)))
    (folder / "labels.csv").write_text("name,label,split\na,1000000000,train\nb,0,val\n")


def read_all(folder: Path) -> None:
    """Prints a line for each bomb, and at last the peak of memory in MB."""

    from data_gen.from_arrays import ArrayClips, number_labels, read_list
    from utils import checkpoint
    from utils.arrays import _read_labels
    from utils.errors import UserError
    from utils.files import load_pickle
    from utils.fusion import read_scores

    readers = {
        "clip.npz": lambda path: ArrayClips(str(path)).read("a"),
        "clip.npy": lambda path: ArrayClips(str(path.parent)).read("clip"),
        "scores.npz": read_scores,
        "checkpoint.pth": checkpoint.load,
        "labels.pkl": lambda path: _read_labels(path, None),
        "labels.csv": lambda path: number_labels(read_list(path)[0]),
    }
    for path in sorted(folder.iterdir()):
        try:
            readers.get(path.name, load_pickle)(path)
            print(f"{path.name}: READ")
        except UserError as error:
            print(f"{path.name}: refused, {error}")
    # of this program: ru_maxrss begins with what the process that started it had
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(f"peak {int(peak.split()[1]) / 1024:.0f} MB")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    read_all(Path(sys.argv[1]))
