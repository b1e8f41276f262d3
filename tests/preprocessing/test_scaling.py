"""Scales: by hand, exactly invertible, and blind to what comes after."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from preprocessing.scaling import MIN_RELATIVE_SCALE, StandardNorm, WindowNorm, rebase

MODES = ("last", "window")


def prices(*shape: int) -> st.SearchStrategy[np.ndarray]:
    """Prices within a factor of 1,000 of each other, at any level."""
    ratios = npst.arrays(np.float64, shape, elements=st.floats(0.03, 30.0))
    return st.builds(lambda ratio, level: ratio * level, ratios, st.floats(1e-6, 1e6))


def test_standard_norm_by_hand() -> None:
    norm = StandardNorm.fit(np.array([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]))
    assert norm == StandardNorm(mean=5.0, std=2.0)
    np.testing.assert_array_equal(norm.transform(np.array([[9.0], [4.0]])), [[2.0], [-0.5]])
    np.testing.assert_array_equal(norm.inverse(np.array([2.0, -0.5])), [9.0, 4.0])


@pytest.mark.parametrize("price", [0.1, 1 / 3, 123.456, 1e-9])
def test_a_constant_price_is_scaled_by_one(price: float) -> None:
    norm = StandardNorm.fit(np.full(1001, price))
    assert norm.std == 1.0
    assert norm.transform(np.array([price + 1])) == pytest.approx(1.0, rel=1e-12)


def test_nothing_to_fit_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no bar lies in the training span"):
        StandardNorm.fit(np.array([]))


def test_rebasing_by_hand() -> None:
    past = np.array([[2.0, 4.0, 8.0], [5.0, 5.0, 5.0]])
    last = rebase(past, "last")
    np.testing.assert_array_equal(last.transform(past), [[0.25, 0.5, 1.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(last.inverse(np.array([[2.0], [3.0]])), [[16.0], [15.0]])
    window = rebase(np.array([[1.0, 3.0]]), "window")
    np.testing.assert_array_equal(window.transform(np.array([[1.0, 3.0, 4.0]])), [[-1.0, 1.0, 2.0]])
    # a constant window: 5 x 1e-4 is its scale, so one percent is a hundred
    constant = rebase(past[1:], "window")
    np.testing.assert_allclose(constant.transform(np.array([[5.0, 5.05]])), [[0.0, 100.0]], rtol=1e-12)


def test_every_shape_is_scaled_window_by_window() -> None:
    norm = WindowNorm(shift=np.array([1.0, 2.0]), scale=np.array([2.0, 4.0]))
    samples = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(norm.transform(samples)[1], (samples[1] - 2.0) / 4.0)
    np.testing.assert_array_equal(norm.transform(samples[:, 0, 0]), [-0.5, 1.0])


def test_an_unknown_rebasing_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no rebasing 'first'; there are last and window"):
        rebase(np.ones((1, 3)), "first")  # pyright: ignore[reportArgumentType]


@settings(max_examples=200, deadline=None)
@given(train=prices(20), other=npst.arrays(np.float64, (3, 4), elements=st.floats(0.03, 30.0)))
def test_standard_norm_inverts_exactly(train: np.ndarray, other: np.ndarray) -> None:
    norm = StandardNorm.fit(train)
    later = other * train.mean()
    np.testing.assert_allclose(norm.inverse(norm.transform(later)), later, rtol=1e-12, atol=0)


@settings(max_examples=200, deadline=None)
@given(past=prices(3, 8), future=npst.arrays(np.float64, (3, 2, 5), elements=st.floats(0.03, 30.0)))
@pytest.mark.parametrize("mode", MODES)
def test_rebasing_inverts_exactly(mode, past: np.ndarray, future: np.ndarray) -> None:
    norm = rebase(past, mode)
    later = future * past.mean(axis=1)[:, None, None]
    np.testing.assert_allclose(norm.inverse(norm.transform(later)), later, rtol=1e-12, atol=0)
    np.testing.assert_allclose(norm.inverse(norm.transform(past)), past, rtol=1e-12, atol=0)


@settings(max_examples=100, deadline=None)
@given(past=prices(3, 8), level=st.floats(1e-3, 1e3))
@pytest.mark.parametrize("mode", MODES)
def test_rebasing_does_not_know_the_price_level(mode, past: np.ndarray, level: float) -> None:
    np.testing.assert_allclose(
        rebase(past * level, mode).transform(past * level), rebase(past, mode).transform(past), rtol=1e-9, atol=1e-9
    )


def test_a_window_that_moves_is_scaled_by_its_own_deviation() -> None:
    past = np.random.default_rng(0).normal(100, 1, (4, 30))
    norm = rebase(past, "window")
    np.testing.assert_allclose(norm.transform(past).mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(norm.transform(past).std(axis=1), 1, rtol=1e-12)
    assert (norm.scale > 10 * MIN_RELATIVE_SCALE * norm.shift).all()
