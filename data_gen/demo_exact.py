"""Arithmetic and chance whose bits are the same on every processor: what the demo data set is made from.

The checksum of the demo clips is a test, so nothing here may depend on the C library or on vector instructions: only
`+ - * /`, square root, comparison and rounding of float64, element by element, which IEEE 754 rounds exactly. No
`np.sin`, `exp`, `dot` or `sum`. Angles are counted in turns (1 = 360 degrees), so that folding into one quarter is
exact.

Chance is counter-based: `Chance(seed, *place)` is a stream of its own for every place (action, subject, ...), so one
clip can be made without making those before it. Only the raw 64-bit words of Philox are used, since the values that a
numpy distribution draws from them may change between versions.
"""

import hashlib

import numpy as np

# Taylor's terms of sin(2 pi t), t in turns: (2 pi)^n / n! with sign; below 1e-11 of error for |t| <= 1/4.
_TWO_PI = 6.283185307179586
_FACTORIALS = (6.0, 120.0, 5040.0, 362880.0, 39916800.0, 6227020800.0, 1307674368000.0)


def sine(turns):
    """sin(2 pi turns), element by element, to about 1e-11."""
    t = np.asarray(turns, dtype=np.float64)
    t = t - np.floor(t + 0.5)  # -1/2 .. 1/2
    t = np.where(t > 0.25, 0.5 - t, np.where(t < -0.25, -0.5 - t, t))
    x = t * _TWO_PI
    square = x * x
    power, total, sign = x, x, -1.0
    for factorial in _FACTORIALS:
        power = power * square
        total = total + sign * (power / factorial)
        sign = -sign
    return total


def cosine(turns):
    """cos(2 pi turns), element by element, to about 1e-11."""
    return sine(np.asarray(turns, dtype=np.float64) + 0.25)


def smooth(x):
    """0 below 0, 1 above 1, between them the quintic with no speed and no acceleration at both ends: how a limb moves
    from one place to another (the minimum-jerk curve)."""
    x = np.minimum(np.maximum(x, 0.0), 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


class Chance:
    """A stream of random numbers of its own for each (seed, place)."""

    def __init__(self, seed: int, *place):
        digest = hashlib.sha256(repr((int(seed),) + place).encode()).digest()
        key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
        self._bits = np.random.Philox(key=key)

    def _words(self, count: int) -> np.ndarray:
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, low=0.0, high=1.0, size=None):
        """Numbers in [low, high): a float, or an array of that size."""
        shape = () if size is None else size
        words = self._words(int(np.prod(shape, dtype=np.int64))) >> np.uint64(11)
        values = low + (high - low) * (words.astype(np.float64) * 2.0**-53).reshape(shape)
        return float(values) if size is None else values

    def normal(self, size=None):
        """Numbers of mean 0 and deviation 1: the sum of the four 16-bit pieces of a word, scaled (so within 3.5)."""
        shape = () if size is None else size
        words = self._words(int(np.prod(shape, dtype=np.int64)))
        total = np.zeros(len(words), dtype=np.float64)
        for shift in (0, 16, 32, 48):
            total = total + ((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64)
        values = ((total / 65536.0 - 2.0 + 2.0 / 65536.0) * 1.7320508075688772).reshape(shape)
        return float(values) if size is None else values

    def integer(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def choice(self, items):
        """One of the items."""
        return items[self.integer(0, len(items) - 1)]

    def wander(self, frames: int, seconds: float, rate: float = 30.0) -> np.ndarray:
        """(frames,) a smooth aimless curve of deviation about 1 that changes in about `seconds`: three sines with
        frequencies and phases of their own."""
        time = np.arange(frames, dtype=np.float64) / rate
        total = np.zeros(frames, dtype=np.float64)
        for _ in range(3):
            cycles = self.uniform(0.25, 1.0) / seconds
            total = total + sine(time * cycles + self.uniform())
        return total * 0.8164965809277261  # sqrt(2 / 3)
