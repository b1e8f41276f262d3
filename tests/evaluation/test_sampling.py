from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from grpo.evaluation.sampling import standard_normal, window_generators


def test_daily_origins_keep_their_streams(make_windows):
    windows = make_windows([100.0] * 2, [[101.0, 102.0]] * 2, items=["A", "B"], days=[0, 3])
    drawn = standard_normal(windows.context, num_samples=3, horizon=2, seed=5)
    for row, (item, day) in enumerate([(b"A", 18_262), (b"B", 18_265)]):
        own = np.random.default_rng((5, zlib.crc32(item), day)).standard_normal((3, 2))
        np.testing.assert_array_equal(drawn[row], own)


def test_bars_of_one_day_draw_numbers_of_their_own(make_windows):
    context = make_windows([100.0] * 3, [[101.0]] * 3, days=[0, 0, 0]).context
    minutes = np.array([0, 600, 605]).astype("timedelta64[m]")
    drawn = standard_normal(replace(context, origin=context.origin + minutes), num_samples=50, horizon=1, seed=0)
    correlations = np.corrcoef(drawn[:, :, 0])[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.5
    alone = standard_normal(context.take([0]), num_samples=50, horizon=1, seed=0)
    np.testing.assert_array_equal(drawn[0], alone[0])


def test_a_window_draws_the_same_in_any_company(make_windows):
    context = make_windows([100.0] * 4, [[101.0]] * 4, items=list("ABCD"), days=[0, 1, 2, 3]).context
    together = [rng.random() for rng in window_generators(context, 1)]
    turned = [rng.random() for rng in window_generators(context.take([3, 2]), 1)]
    assert turned == together[:1:-1]
