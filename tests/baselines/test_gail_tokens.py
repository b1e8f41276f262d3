"""Returns as tokens, and the demonstrations that they are made of."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.gail.standalone.gbm import GbmConfig, simulate_gbm
from baselines.gail.tokens import LEVELS, Tokenizer
from preprocessing.errors import UserError


def test_bins_hold_equal_counts_and_decode_to_what_they_hold():
    tokenizer = Tokenizer.fit(np.arange(8.0), 2)  # bins 0..3 and 4..7, cut at the median 3.5
    assert tokenizer.edges.tolist() == [3.5]
    assert tokenizer.means.tolist() == [1.5, 5.5]
    assert tokenizer.encode(np.array([-9.0, 3.4, 3.5, 99.0])).tolist() == [0, 0, 1, 1]
    tokens, position = np.array([0, 1, 1]), np.array([0.5, 0.0, 0.25])
    assert tokenizer.decode(tokens, position, "mean").tolist() == [1.5, 5.5, 5.5]
    assert tokenizer.decode(tokens, position, "uniform").tolist() == [1.5, 4.0, 4.75]
    values = np.random.default_rng(0).standard_normal(3300)
    counts = np.bincount(Tokenizer.fit(values, 33).encode(values))
    assert counts.tolist() == [100] * 33


def test_drawing_in_a_bin_by_its_quantiles_gives_back_its_values():
    values = np.exp(np.random.default_rng(1).standard_normal(4000))  # skewed: a bin's values are not uniform
    tokenizer = Tokenizer.fit(values, 4)
    top = values[values >= tokenizer.edges[-1]]
    grid = (np.arange(20_000) + 0.5) / 20_000
    token = np.full(20_000, 3)
    drawn = tokenizer.decode(token, grid, "quantile")
    for level in LEVELS[[0, 3, 16, 29]]:  # the knots are exact
        expected = np.quantile(top, level)
        assert np.interp(level, grid, drawn) == pytest.approx(expected, rel=1e-3)
    # every draw stays in its bin; uniform draws would have the mean of the ends
    np.testing.assert_array_equal(tokenizer.encode(drawn), token)
    assert drawn.mean() == pytest.approx(top.mean(), rel=0.01)
    assert drawn.std() == pytest.approx(top.std(), rel=0.05)
    assert tokenizer.decode(token, grid, "uniform").mean() > 1.5 * top.mean()


def test_the_round_trip_is_measured():
    trip = Tokenizer.fit(np.arange(8.0), 2).round_trip(np.array([1.0, 5.0, -1.0, 10.0]))
    # errors .5, .5, 2.5, -4.5
    assert trip.rmse == pytest.approx(np.sqrt((0.25 + 0.25 + 6.25 + 20.25) / (1 + 25 + 1 + 100)))
    assert trip.max_error == 4.5
    assert trip.outside == 0.5


def test_values_that_tie_make_fewer_bins_and_none_is_empty():
    values = np.concatenate([np.zeros(50), np.arange(1.0, 51.0)])
    tokenizer = Tokenizer.fit(values, 10)
    assert tokenizer.num_tokens == 6  # half of the values are one: five of ten bins are one
    assert (np.bincount(tokenizer.encode(values)) > 0).all()
    assert tokenizer.decode(np.array([0]), np.array([0.3]), "quantile") == 0
    assert Tokenizer.fit(np.zeros(20), 10).num_tokens == 1


def test_too_few_values_are_refused():
    with pytest.raises(UserError, match="33 tokens need at least 66 training returns; got 65"):
        Tokenizer.fit(np.arange(65.0), 33)


def test_a_tokenizer_is_kept_as_tensors():
    tokenizer = Tokenizer.fit(np.random.default_rng(2).standard_normal(500), 9)
    again = Tokenizer.from_state(tokenizer.state())
    for name in ("edges", "means", "knots"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tokenizer, name))


def test_geometric_brownian_motion_has_its_moments():
    config = GbmConfig(mu=0.3, sigma=0.4, start=50.0, years=2.0, steps=4, paths=50_000)
    parts = simulate_gbm(config, seed=1)
    assert [len(part) for part in parts.values()] == [35_000, 5_000, 10_000]
    prices = np.concatenate([part.prices(part.returns.double().numpy()) for part in parts.values()])
    assert (prices[:, 0] == 50.0).all()
    log_price = np.log(prices[:, -1] / 50)
    # log S_T is normal with mean (mu - sigma^2 / 2) T and variance sigma^2 T; four standard errors
    assert log_price.mean() == pytest.approx((0.3 - 0.08) * 2, abs=4 * 0.4 * np.sqrt(2 / 50_000))
    assert log_price.var() == pytest.approx(0.16 * 2, rel=4 * np.sqrt(2 / 50_000))
    assert prices[:, -1].mean() == pytest.approx(50 * np.exp(0.6), rel=0.02)
    assert float(parts["train"].returns.std()) == pytest.approx(1, rel=1e-3)
    assert parts["val"].context.shape == (5_000, 0)
    with pytest.raises(ValueError, match=r"gbm\.sigma must be positive; got 0"):
        GbmConfig(sigma=0)
