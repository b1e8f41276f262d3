"""The one way from a seed to random numbers: by what they are for, and for which window or step.

A stream is named by a seed and keys, and by nothing else. A draw then depends neither on the batch nor on the order in
which draws are made, and a resumed training needs no saved state: it names the step that it is at.

    generator(seed, item, origin)              # one window's variates; see `grpo.evaluation.sampling`
    generator(seed, "shuffle", epoch)          # one epoch's order
    integer(seed, "vllm", item, origin)        # for a library that takes a number
"""

from __future__ import annotations

import zlib

import numpy as np

Key = int | np.integer | str | np.datetime64
"""Steps and counts are numbers from 0 on, purposes and stocks are text, origins are dates or times."""
_WORD = 2**32


def generator(seed: int, *keys: Key) -> np.random.Generator:
    """A generator of NumPy, of its own for each combination of seed and keys.

    Raises:
        ValueError: a negative number.
    """
    return np.random.default_rng(seed_sequence(seed, *keys))


def integer(seed: int, *keys: Key, bits: int = 31) -> int:
    """A seed in [0, 2^bits) for a library that takes a number; `integers` of one."""
    return integers(seed, *keys, count=1, bits=bits)[0]


def integers(seed: int, *keys: Key, count: int, bits: int = 31) -> list[int]:
    """`count` independent seeds in [0, 2^bits).

    Args:
        seed: of the run.
        keys: what they are for.
        count: how many.
        bits: 31 for what fits a signed number of 32 bits, 63 for what torch and vLLM take, at most 64.
    """
    words = seed_sequence(seed, *keys).generate_state(count, np.uint32 if bits <= 32 else np.uint64)
    # the high bits: the same word, cut to what the library can hold
    return [int(word) >> (8 * words.itemsize - bits) for word in words]


def seed_sequence(seed: int, *keys: Key) -> np.random.SeedSequence:
    """What the other functions are made of.

    Raises:
        ValueError: a negative number.
    """
    return np.random.SeedSequence([int(seed), *(word for key in keys for word in _words(key))])


def text_word(text: str) -> int:
    """The number in [0, 2^32) that stands for a text."""
    return zlib.crc32(text.encode())


def _words(key: Key) -> list[int]:
    if isinstance(key, str):
        return [text_word(key)]
    if isinstance(key, np.datetime64):
        return _time_words(key)
    return [int(key)]


def _time_words(time: np.datetime64) -> list[int]:
    """The day since 1970, and the nanosecond of the day unless it is midnight."""
    day = time.astype("datetime64[D]")
    nanosecond = (time - day).astype("timedelta64[ns]").astype(np.int64)
    # SeedSequence takes no negative number; days before 1970 wrap around.
    words = [int(day.astype(np.int64)) % _WORD]
    return [*words, *divmod(int(nanosecond), _WORD)[::-1]] if nanosecond else words
