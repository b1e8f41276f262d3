"""The stated law of the days to come: against enumeration, closed forms, a reference library, and the simulator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from preprocessing.laws import DRAWS, LAWS, LEVEL, ConditionalLaw, GaussianMixture, conditional_law
from preprocessing.simulation import PROCESSES, as_columns, parse_simulated_stock

SIGMA, HORIZON = 0.02, 4
CASES = {
    "gbm": {"drift": 0.003},
    "ou": {"half_life": 4.0},
    "ar": {"phi": 0.4},
    "trend": {"half_life": 6.0, "drift": 0.004},
    "seasonal": {"half_life": 2.0, "period": 9.0, "amplitude": 3.0, "phase": 0.2},
    "regime": {"switch": 0.1, "wildness": 2.5, "tilt": 0.3},
    "garch": {"drift": 0.001, "alpha": 0.2, "beta": 0.7},
    "jump": {"drift": 0.001, "intensity": 0.2, "jump_mean": -1.5, "jump_sd": 2.0},
}
TAILS = (1e6, 5.0)


def parameters_of(process: str, tail: float = 1e6) -> dict[str, float]:
    return {**PROCESSES[process].defaults, "sigma": SIGMA, "tail": tail, **CASES[process]}


def stock_of(process: str, tail: float = 1e6, rows: int = 6000):
    query = "&".join(f"{name}={value}" for name, value in parameters_of(process, tail).items())
    return parse_simulated_stock(f"sim:{process}?{query}&rows={rows}&seed=3")


def law_of(process: str, tail: float = 1e6, rows: tuple[int, ...] = (20, 100, 199)) -> ConditionalLaw:
    law = conditional_law(stock_of(process, tail, rows=200), np.array(rows), HORIZON)
    assert law is not None
    return law


def within(values: np.ndarray, want: float | np.ndarray) -> None:
    """The mean over the first axis is within four standard errors of what it should be."""
    error = 4 * values.std(axis=0) / np.sqrt(len(values))
    np.testing.assert_array_less(np.abs(values.mean(axis=0) - want), error)


def test_every_law_is_tested() -> None:
    assert set(CASES) == set(LAWS) == set(PROCESSES) - {"stochvol", "heston"}


@pytest.mark.parametrize("process", ["stochvol", "heston"])
def test_a_hidden_variance_leaves_no_exact_law(process: str) -> None:
    assert conditional_law(parse_simulated_stock(f"sim:{process}?rows=50"), np.array([10]), 3) is None


# Against the simulator itself: many futures of one past


class SharedPast:
    """A generator whose draws of the first days are the same for all series, so that they share their past."""

    def __init__(self, days: int) -> None:
        self.rng, self.days = np.random.default_rng(5), days

    def __getattr__(self, method: str):
        def draw(*arguments) -> np.ndarray:
            draws = getattr(self.rng, method)(*arguments)
            draws[:, : self.days] = draws[:1, : self.days]
            return draws

        return draw


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("process", [name for name in CASES if name != "regime"])  # whose state is not shared by prices
def test_futures_of_one_past_follow_the_stated_law(process: str, tail: float) -> None:
    days, series = 12, 20_000
    values = parameters_of(process, tail)
    paths = PROCESSES[process].simulate(as_columns(values, series), days + HORIZON, SharedPast(days))  # type: ignore
    past, future = LEVEL + paths.log_price[0, :days], LEVEL + paths.log_price[:, days:]
    assert (np.ptp(paths.log_price[:, :days], axis=0) < 1e-12).all()
    # what comes after the origin must not count
    law = LAWS[process](values, np.append(past, np.full(3, np.nan)), np.array([days - 1]), HORIZON)
    assert law.exact == (tail > 1e3 and process != "garch")

    within(future, law.mean[0])
    for probability in (0.05, 0.5, 0.9):
        below = (future < law.quantile(probability)).mean(axis=0)
        assert np.abs(below - probability).max() < 4 * np.sqrt(
            probability * (1 - probability) * (1 / series + 1 / DRAWS)
        )
    halves = np.abs(future[: series // 2] - future[series // 2 :]) / 2
    distances = np.abs(future - law.quantile(0.5))
    for draws, best in ((halves, law.best_crps[0]), (distances, law.best_mae[0])):
        # a law from DRAWS paths has an error of its own
        error = 4 * draws.std(axis=0) * np.sqrt(1 / len(draws) + (0 if law.exact else 2 / DRAWS))
        np.testing.assert_array_less(np.abs(draws.mean(axis=0) - best), error)

    samples = law.sample(series, [np.random.default_rng(0)])[0]
    for h, k in itertools.combinations_with_replacement(range(HORIZON), 2):
        # products of absolute distances exist for heavy tails too, and their mean is that of the joint law
        ours, theirs = (np.prod(np.sqrt(np.abs(x[:, [h, k]] - law.mean[0, [h, k]])), axis=1) for x in (samples, future))
        error = 4 * np.hypot(ours.std(), theirs.std()) / np.sqrt(series)
        assert abs(ours.mean() - theirs.mean()) < error
        signs = [np.sign(x[:, h] - law.mean[0, h]) * np.sign(x[:, k] - law.mean[0, k]) for x in (samples, future)]
        assert abs(signs[0].mean() - signs[1].mean()) < 4 * np.sqrt(2 / series)


# Against the rest of one long path: what comes must look drawn from the law, whatever the past was


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("process", CASES)
def test_a_path_goes_on_as_its_law_says(process: str, tail: float) -> None:
    stock = stock_of(process, tail)
    log_price = stock.paths().log_price[0]
    origins = np.arange(30, stock.rows - HORIZON, HORIZON)  # futures do not overlap
    law = conditional_law(stock, origins, HORIZON)
    assert law is not None
    came = log_price[origins[:, None] + np.arange(1, HORIZON + 1)]
    within(came - law.mean, 0.0)
    samples = law.sample(99, [np.random.default_rng(row) for row in range(len(origins))])
    ranks = (samples < came[:, None]).mean(axis=1)  # of 100 places, each equally likely
    error = 4 / np.sqrt(len(origins))
    returns = np.diff(log_price)[origins - 1]
    for uniform in [ranks] + ([law.marginals.cdf(came)] if law.exact else []):
        assert np.abs(uniform.mean(axis=0) - 0.5).max() < error * np.sqrt(1 / 12)
        assert np.abs(((uniform - 0.5) ** 2).mean(axis=0) - 1 / 12).max() < error * np.sqrt(1 / 180) + 1e-3
        for known in (returns, np.abs(returns), log_price[origins]):
            for h in range(HORIZON):
                assert abs(np.corrcoef(known, uniform[:, h])[0, 1]) < error
                assert abs(np.corrcoef(known, np.abs(uniform[:, h] - 0.5))[0, 1]) < error
    if law.exact:
        distance = law.marginals.distance(came)
        within(distance - law.best_crps - law.best_crps, 0.0)  # CRPS = E|X - y| - E|X - X'| / 2
        within(np.abs(came - law.quantile(0.5)) - law.best_mae, 0.0)


# Against single steps, enumeration and closed forms


def reach_of(process: str) -> np.ndarray:
    """[H, H] how far the shock of day j (column) moves the log price of day h (row), step by step."""
    days = np.arange(HORIZON)
    powers = np.tril(np.subtract.outer(days, days))
    p = parameters_of(process)
    if process == "gbm":
        return np.tril(np.ones((HORIZON, HORIZON)))
    if process == "ar":
        return np.cumsum(np.tril(0.4**powers), axis=0)
    return np.tril(0.5 ** (powers / p["half_life"]))


@pytest.mark.parametrize("process", ["gbm", "ou", "ar", "trend", "seasonal"])
def test_a_gaussian_law_composes_the_single_steps(process: str) -> None:
    stock, rows = stock_of(process, rows=200), (20, 100, 194)
    x = stock.paths().log_price[0] - LEVEL
    wave = 3 * SIGMA * np.sin(2 * np.pi * (np.arange(200) / 9 + 0.2))
    line = 0.004 * np.arange(200)
    step = {
        "gbm": lambda path, t: path[t - 1] + 0.003,
        "ou": lambda path, t: 0.5 ** (1 / 4) * path[t - 1],
        "ar": lambda path, t: path[t - 1] + 0.4 * (path[t - 1] - path[t - 2]),
        "trend": lambda path, t: line[t] + 0.5 ** (1 / 6) * (path[t - 1] - line[t - 1]),
        "seasonal": lambda path, t: wave[t] + 0.5 ** (1 / 2) * (path[t - 1] - wave[t - 1]),
    }[process]
    law = law_of(process, rows=rows)
    for window, row in enumerate(rows):
        path = list(x[: row + 1])
        for t in range(row + 1, row + 1 + HORIZON):
            path.append(step(path, t))
        np.testing.assert_allclose(law.mean[window], LEVEL + np.array(path[-HORIZON:]), rtol=0, atol=1e-12)
    reach = reach_of(process)
    sd = SIGMA * np.sqrt((reach**2).sum(axis=1))
    # a Gaussian: its median is its mean, its CRPS sd / sqrt(pi), its mean absolute error sd sqrt(2 / pi)
    np.testing.assert_allclose(law.quantile(0.5), law.mean, rtol=1e-13)
    np.testing.assert_allclose(law.quantile(0.975) - law.mean, np.tile(stats.norm.ppf(0.975) * sd, (3, 1)), rtol=1e-9)
    np.testing.assert_allclose(law.best_crps, np.tile(sd / np.sqrt(np.pi), (3, 1)), rtol=1e-12)
    np.testing.assert_allclose(law.best_mae, np.tile(sd * np.sqrt(2 / np.pi), (3, 1)), rtol=1e-12)
    # the same seed gives the same normal numbers, moved by the reach of each day's shock
    normal = np.random.default_rng(0).standard_normal((7, HORIZON))
    samples = law.sample(7, [np.random.default_rng(0)] * 3)
    np.testing.assert_allclose(samples[0] - law.mean[0], SIGMA * normal @ reach.T, rtol=0, atol=1e-14)


@pytest.mark.parametrize("tail", TAILS)
def test_the_law_of_regimes_is_that_of_all_state_paths(tail: float) -> None:
    past, p = 6, parameters_of("regime", tail)
    log_price = stock_of("regime", tail, rows=200).paths().log_price[0][:past]
    returns = np.diff(log_price, prepend=LEVEL)
    density = stats.norm() if tail > 1e3 else stats.t(tail, scale=np.sqrt((tail - 2) / tail))
    weights, wild_days = [], []
    for states in itertools.product((0, 1), repeat=past + HORIZON):
        probability = 0.5
        for before, state in itertools.pairwise(states):
            probability *= p["switch"] if state != before else 1 - p["switch"]
        for change, state in zip(returns, states, strict=False):
            sd, drift = (2.5 * SIGMA, -0.3 * SIGMA) if state else (SIGMA, 0.3 * SIGMA)
            probability *= density.pdf((change - drift) / sd) / sd
        weights.append(probability)
        wild_days.append(np.cumsum(states[past:]))
    weights, wild_days = np.array(weights) / sum(weights), np.array(wild_days)  # [2^T], [2^T, H]
    days = np.arange(1, HORIZON + 1)
    means = log_price[-1] + 0.3 * SIGMA * (days - 2 * wild_days)
    law = LAWS["regime"](p, log_price, np.array([past - 1]), HORIZON)
    np.testing.assert_allclose(law.mean[0], weights @ means, rtol=1e-12)
    if tail < 1e3:
        return
    sds = SIGMA * np.sqrt(days - wild_days + wild_days * 2.5**2)
    for x in log_price[-1] + SIGMA * np.array([-5.0, -1.0, 0.0, 0.5, 4.0]):
        want = weights @ stats.norm.cdf((x - means) / sds)
        np.testing.assert_allclose(law.marginals.cdf(np.full((1, HORIZON), x))[0], want, rtol=1e-10)


@pytest.mark.parametrize("switch", [0.0, 1.0])
def test_regimes_that_never_or_always_switch(switch: float) -> None:
    stock = parse_simulated_stock(f"sim:regime?switch={switch}&rows=600&tilt=1&wildness=4")
    law = conditional_law(stock, np.array([500, 501]), 2)
    assert law is not None
    assert np.isfinite(law.best_crps).all()
    np.testing.assert_allclose(law.marginals.weights.sum(-1), 1, rtol=1e-12)
    # after 500 days the state is known; the next two days are both, or one of them, like the last
    moves = np.diff(stock.paths().step_mean[0] - np.pad(stock.paths().log_price[0][:-1], (1, 0)))
    assert (np.abs(moves[499:]).max() > 1e-6) == (switch == 1)
    drift = stock.paths().step_mean[0][501] - stock.paths().log_price[0][500]
    np.testing.assert_allclose(law.mean[0, 0] - stock.paths().log_price[0][500], drift, rtol=1e-9)


def test_the_law_of_jumps_is_a_poisson_mixture() -> None:
    law = law_of("jump")
    days = np.arange(1, HORIZON + 1)
    last = stock_of("jump", rows=200).paths().log_price[0][[20, 100, 199]]
    np.testing.assert_allclose(law.mean, last[:, None] + days * (0.001 - 0.2 * 1.5 * SIGMA), rtol=1e-12)
    for h in days:
        counts = np.arange(60)
        weights = stats.poisson.pmf(counts, 0.2 * h)
        x = last[1] - 2 * SIGMA
        z = (x - last[1] - 0.001 * h + 1.5 * SIGMA * counts) / (SIGMA * np.sqrt(h + 4 * counts))
        got = law.marginals.cdf(np.full((3, HORIZON), x))[1, h - 1]
        assert got == pytest.approx(weights @ stats.norm.cdf(z), rel=1e-11)


def test_without_jumps_a_jump_diffusion_is_a_random_walk() -> None:
    rows = np.array([50])
    walk, jumps = (
        conditional_law(parse_simulated_stock(f"sim:{name}&drift=0.002&rows=90"), rows, 3)
        for name in ("gbm?sigma=0.03", "jump?sigma=0.03&intensity=0")
    )
    assert walk is not None
    assert jumps is not None
    for probability in (0.1, 0.7):
        np.testing.assert_allclose(jumps.quantile(probability), walk.quantile(probability), rtol=1e-12)
    np.testing.assert_allclose(jumps.best_crps, walk.best_crps, rtol=1e-12)


@pytest.mark.parametrize("row", [0, 1, 150])
def test_the_first_day_of_garch_is_exact(row: int) -> None:
    stock = stock_of("garch", rows=200)
    law = conditional_law(stock, np.array([row]), 3)
    assert law is not None
    sd = stock.paths().step_sd[0, row + 1]
    assert law.quantile(0.9)[0, 0] - law.mean[0, 0] == pytest.approx(stats.norm.ppf(0.9) * sd, rel=1e-6)
    assert law.best_crps[0, 0] == pytest.approx(sd / np.sqrt(np.pi), rel=1e-9)
    assert law.best_mae[0, 0] == pytest.approx(sd * np.sqrt(2 / np.pi), rel=1e-6)


# Mixtures


def test_a_mixture_by_hand_and_by_a_reference_library() -> None:
    scoringrules = pytest.importorskip("scoringrules")
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(5), size=(3, 2))
    mean, sd = rng.normal(0, 2, (3, 2, 5)), rng.uniform(0.3, 2, (3, 2, 5))
    mixture = GaussianMixture(weights, mean, sd)
    for y in (-3.0, 0.0, 2.5):
        outcome = np.full((3, 2), y)
        crps = mixture.distance(outcome) - mixture.spread() / 2
        np.testing.assert_allclose(crps, scoringrules.crps_mixnorm(outcome, mean, sd, weights), rtol=1e-10)
        np.testing.assert_allclose(mixture.cdf(outcome), (weights * stats.norm.cdf(y, mean, sd)).sum(-1), rtol=1e-12)
    for probability in (0.01, 0.5, 0.99):
        np.testing.assert_allclose(mixture.cdf(mixture.quantile(probability)), probability, rtol=1e-12)


def test_a_drawn_mixture_is_that_of_its_components() -> None:
    """2,000 pairs of draws from a mixture of two Gaussians, beside its closed form."""
    rng = np.random.default_rng(0)
    which = rng.random((1, 1, DRAWS)) < 0.3
    draws = np.full((1, 1, DRAWS), 1 / DRAWS)
    drawn = GaussianMixture(draws, np.where(which, -1.0, 2.0), np.where(which, 0.5, 1.0), drawn=True)
    both = GaussianMixture(np.array([[[0.3, 0.7]]]), np.array([[[-1.0, 2.0]]]), np.array([[[0.5, 1.0]]]))
    assert drawn.spread()[0, 0] == pytest.approx(both.spread()[0, 0], abs=4 * 1.5 / np.sqrt(DRAWS / 2))
    assert drawn.spread()[0, 0] != both.spread()[0, 0]
