from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from preprocessing.seeds import generator, integer, integers, seed_sequence


def test_one_key_in_each_kind_by_hand():
    # NumPy's own seeding of the words that stand for seed, text and days since 1970
    day = np.datetime64("2020-01-02T00:00", "ns")
    words = [7, zlib.crc32(b"AAPL"), 18_263, 4]
    assert generator(7, "AAPL", day, 4).random() == np.random.default_rng(words).random()
    assert generator(7).random() == np.random.default_rng(7).random()


def test_days_before_1970_wrap_around():
    assert seed_sequence(0, np.datetime64("1969-12-31")).entropy == [0, 2**32 - 1]


def test_midnight_is_the_day_in_every_unit():
    streams = [generator(1, np.datetime64("2021-03-04", unit)).random() for unit in ("D", "m", "s", "ns")]
    assert len(set(streams)) == 1


def test_times_of_a_day_differ_to_the_nanosecond():
    times = ["2021-03-04", "2021-03-04T10:00", "2021-03-04T10:05", "2021-03-04T10:05:00.000000001", "2021-03-05T10:00"]
    assert len({generator(1, np.datetime64(time)).random() for time in times}) == len(times)


def test_every_combination_has_a_stream_of_its_own():
    keys = itertools.product(range(3), ("vllm", "shuffle"), range(3), range(3))
    drawn = [integer(*key, bits=63) for key in keys]
    assert len(set(drawn)) == 54


def test_neighbouring_seeds_share_nothing():
    # vLLM gives sample j of a request the seed of the request plus j
    requests = [integer(seed, "vllm", row, bits=63) for seed in range(20) for row in range(50)]
    assert np.diff(np.sort(requests)).min() > 1000


def test_integers_fill_their_range():
    for bits in (31, 32, 63, 64):
        drawn = integers(3, "width", count=200, bits=bits)
        assert len(set(drawn)) == 200
        assert 0.95 * 2**bits < max(drawn) < 2**bits
        assert min(drawn) < 0.05 * 2**bits


def test_one_integer_is_the_first_of_many():
    assert integer(3, 5, bits=32) == integers(3, 5, count=9, bits=32)[0]
    assert integers(3, 5, count=4) == [int(word >> 1) for word in np.random.SeedSequence((3, 5)).generate_state(4)]


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="non-negative"):
        generator(-1)
