"""Fingerprints: short checksums that show whether data has changed.

A fingerprint of clips is a plain dictionary (`of_clips`), stored in checkpoints, arguments.json and results: the number of
clips, the shape of the packed coordinates, and a checksum each of names, labels, frame counts and coordinates. Names, labels
and counts are read completely at every start. Coordinates are read completely once, when they are packed (feeder.packed);
later the packed file is identified by size, modification time and 64 sampled blocks of its source, which takes milliseconds
for any size. So a new array is noticed, but not a change of a single clip that keeps the time and is outside these blocks.
"""

import hashlib
import json
import os

import numpy as np

BLOCKS, BLOCK_BYTES = 64, 4096
PARTS = ("names", "labels", "frames", "coordinates")  # of a fingerprint, each 16 hexadecimal digits
WORDS = "{split: {clips, shape, " + ", ".join(PARTS) + "}}"


def checksum(*parts) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts, bytes or else their `str`, each preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, (bytes, memoryview)) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def sampled(handle: int, start: int, stop: int) -> str:
    """Checksum of `BLOCKS` evenly spread blocks, including the first and the last, of the bytes start..stop of an open file;
    of all bytes if they are fewer. Raises OSError."""
    places = np.linspace(start, max(stop - BLOCK_BYTES, start), BLOCKS).astype(np.int64)
    digest = hashlib.sha256()
    for place in sorted(set(places.tolist())):
        digest.update(os.pread(handle, min(BLOCK_BYTES, stop - place), place))
    return digest.hexdigest()[:16]


def of_clips(names, labels, num_frame, shape, coordinates: str) -> dict:
    """The fingerprint of packed clips. names: N strings; labels, num_frame (N,); shape: of the packed coordinates;
    coordinates: their checksum."""
    return {
        "clips": len(names),
        "shape": [int(n) for n in shape],
        "names": checksum("\n".join(names)),
        "labels": checksum(np.asarray(labels, dtype="<i8").tobytes()),
        "frames": checksum(np.asarray(num_frame, dtype="<i8").tobytes()),
        "coordinates": coordinates,
    }


def is_valid(value) -> bool:
    """Whether a value is a dictionary of fingerprints by split, as in `WORDS`."""
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
    """The inverse of `to_text`; {} for any other text."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if is_valid(data) else {}


def differences(then: dict, now: dict) -> list[str]:
    """The differences between two fingerprints by split, in words, for the splits in both; [] if they are equal."""
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
