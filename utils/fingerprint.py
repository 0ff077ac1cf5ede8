"""Fingerprints: short checksums that tell whether data is still what it was.

A fingerprint of clips is a plain dictionary (`of_clips`), kept in checkpoints, arguments.json and results: their number, the
shape of the packed coordinates, and a checksum each of names, labels, frame counts and coordinates. Names, labels and
counts are read whole at every start. Coordinates are read whole once, when they are packed (feeder.packed); at a start
the packed file is known by size, time and 64 sampled blocks of its source, which takes milliseconds for any size. So an
array that is written anew is noticed, and a single clip that is changed behind the file's back, with the old time and in
none of the sampled blocks, is not.
"""

import hashlib
import json
import os

import numpy as np

BLOCKS, BLOCK_BYTES = 64, 4096
PARTS = ("names", "labels", "frames", "coordinates")  # of a fingerprint, each 16 hexadecimal digits
WORDS = "{split: {clips, shape, " + ", ".join(PARTS) + "}}"


def checksum(*parts) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts: bytes, or what `str` makes of them, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, (bytes, memoryview)) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def sampled(handle: int, start: int, stop: int) -> str:
    """Checksum of `BLOCKS` blocks, the first and the last among them, of the bytes start..stop of an open file; of all
    bytes where they are fewer. Raises OSError, also when the file is shorter."""
    places = np.linspace(start, max(stop - BLOCK_BYTES, start), BLOCKS).astype(np.int64)
    digest = hashlib.sha256()
    for place in sorted(set(places.tolist())):
        digest.update(os.pread(handle, min(BLOCK_BYTES, stop - place), place))
    return digest.hexdigest()[:16]


def of_clips(names, labels, num_frame, shape, coordinates: str) -> dict:
    """The fingerprint of packed clips. names: N strings; labels, num_frame (N,); shape: of the packed coordinates, which
    `coordinates` is the checksum of."""
    return {
        "clips": len(names),
        "shape": [int(n) for n in shape],
        "names": checksum("\n".join(names)),
        "labels": checksum(np.asarray(labels, dtype="<i8").tobytes()),
        "frames": checksum(np.asarray(num_frame, dtype="<i8").tobytes()),
        "coordinates": coordinates,
    }


def is_valid(value) -> bool:
    """Whether a value is fingerprints by split, as `WORDS` says."""
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and type(entry.get("clips")) is int
        and isinstance(entry.get("shape"), list)
        and all(type(n) is int for n in entry["shape"])
        and all(isinstance(entry.get(part), str) for part in PARTS)
        for entry in value.values()
    )


def to_text(data: dict) -> str:
    """Fingerprints by split as text, for an archive of arrays."""
    return json.dumps(data)


def from_text(text: str) -> dict:
    """What `to_text` wrote; {} for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if is_valid(data) else {}


def differences(then: dict, now: dict) -> list[str]:
    """What differs between two fingerprints by split, in words, for the splits that both have: [] when nothing does."""
    found = []
    for split in sorted(then.keys() & now.keys()):
        a, b = then[split], now[split]
        if a["clips"] != b["clips"]:
            found.append(f"{a['clips']} {split} clips then, {b['clips']} now")
        elif a["shape"] != b["shape"]:
            found.append(f"{split} coordinates of shape {tuple(a['shape'])} then, {tuple(b['shape'])} now")
        else:
            parts = [part for part in PARTS if a[part] != b[part]]
            found += [f"other {' and '.join(parts)} in the {split} split"] if parts else []
    return found
