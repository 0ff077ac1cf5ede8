"""Class names are what numbers mean: they were held against the lists of the data sets' owners, and stay as they were then."""

import hashlib

import pytest

from options import class_names

CHECKSUMS = {
    "NTU120": (120, "d5eb805116d2e065f8e0447fdeab19c27a5df4b5c1cf75ad59a2fa6a90e910da"),
    "PKU": (51, "3ee59cea8da2ba56fcc4b07ae2761e09b67298e23f05f6eadd6a27ffde2d558a"),
}
# numbers from 1, as the owners count, of classes that other lists are known to swap or shift, with a word of theirs
PUBLISHED = {
    1: "drink", 2: "eat", 6: "pick", 9: "stand", 14: "jacket", 16: "shoe", 25: "pocket", 34: "rub", 35: "nod", 41: "sneeze",
    43: "fall", 44: "head", 45: "chest", 46: "back", 47: "neck", 49: "fan", 50: "punch", 51: "kick", 52: "push", 53: "pat",
    54: "point", 55: "hug", 56: "giv", 57: "pocket", 58: "shak", 59: "towards", 60: "apart", 61: "put on headphone",
    66: "juggl", 71: "ok", 79: "sniff", 80: "squat", 86: "hand", 89: "into bag", 90: "out of bag", 95: "capitulate",
    99: "run", 100: "butt", 105: "nose", 106: "hit", 110: "gun", 112: "high-five", 119: "support", 120: "rock-paper",
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKSUMS)
def test_names_are_those_that_were_verified(name):
    names = getattr(class_names, name)
    assert len(names) == len(set(names)) == CHECKSUMS[name][0]
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == CHECKSUMS[name][1]


def test_numbers_mean_what_the_owners_say():
    for number, word in PUBLISHED.items():
        assert word in class_names.NTU120[number - 1].lower(), (number, class_names.NTU120[number - 1])
