"""Each simulated process: the law of its single steps, its recursion, its stationary moments, and its name."""

from __future__ import annotations

import numpy as np
import pytest

from preprocessing.simulation import PROCESSES, SimulationError, parse_simulated_stock

SERIES, ROWS, SIGMA = 2000, 60, 0.02
CASES = {
    "gbm": {"drift": 0.003},
    "ou": {"half_life": 4.0},
    "ar": {"phi": 0.4},
    "trend": {"half_life": 6.0, "drift": 0.004},
    "seasonal": {"half_life": 2.0, "period": 9.0, "amplitude": 3.0, "phase": 0.2},
    "regime": {"switch": 0.1, "wildness": 2.5, "tilt": 0.3},
    "stochvol": {"drift": 0.001, "persistence": 0.9, "vol_of_vol": 0.2},
    "garch": {"drift": 0.001, "alpha": 0.15, "beta": 0.8},
    "heston": {"drift": 0.001, "reversion": 0.2, "vol_of_vol": 0.3, "leverage": -0.6},
    "jump": {"drift": 0.001, "intensity": 0.1, "jump_mean": -1.5, "jump_sd": 2.0},
}


def simulate(process: str, *, tail: float = 1e6, series: int = SERIES, rows: int = ROWS):
    values = PROCESSES[process].defaults | {"sigma": SIGMA, "tail": tail} | CASES[process]
    parameters = {name: np.full((series, 1), value) for name, value in values.items()}
    return PROCESSES[process].simulate(parameters, rows, np.random.default_rng(0))


REFERENCE = {
    "gbm?rows=200&seed=7": (67.30835050841957, 6225.836496971017, 866.3330621392566, 3.000000000000001),
    "gbm?rows=200&seed=7&tail=5": (68.09746854302753, 6249.8991397326245, 872.3439630385892, 2.9627329236736646),
    "ou?rows=200&seed=7": (104.32224421074591, 6437.01667947077, 919.3481970806761, 3.000000000000001),
    "ou?rows=200&seed=7&tail=5": (104.05416524812593, 6437.28216475376, 919.4029067444413, 2.9627329236736646),
    "ar?rows=200&seed=7": (56.26266027434672, 6132.726648821874, 842.9666099230416, 3.000000000000001),
    "ar?rows=200&seed=7&tail=5": (57.232279875623675, 6167.074764573617, 851.5512835277721, 2.9627329236736646),
    "trend?rows=200&seed=7": (115.23627786423405, 6476.617679470771, 929.2981970806761, 3.000000000000001),
    "trend?rows=200&seed=7&tail=5": (114.94015289050722, 6476.883164753759, 929.3529067444414, 2.9627329236736646),
    "seasonal?rows=200&seed=7": (103.3595928489959, 6437.028777181001, 919.3481970806762, 3.000000000000001),
    "seasonal?rows=200&seed=7&tail=5": (103.09398763088139, 6437.294937569391, 919.4029067444413, 2.9627329236736646),
    "regime?rows=200&seed=7": (65.22573379274417, 6253.423651515139, 873.2597505370568, 4.485000000000001),
    "regime?rows=200&seed=7&tail=5": (52.39189676736619, 6057.5305247141005, 824.4062518002452, 4.35446869968893),
    "stochvol?rows=200&seed=7": (64.84755396241385, 6248.141635969194, 871.9311520543649, 3.2757090943540894),
    "stochvol?rows=200&seed=7&tail=5": (58.05753497097207, 6171.395360404859, 852.8029422711645, 3.353428230667874),
}  # fmt: skip
"""Last close, and the sums of the logarithms of all bars, of the means and of the deviations of the steps."""


@pytest.mark.parametrize("name", REFERENCE)
def test_a_simulated_stock_stays_what_it_was(name):
    """The embedded model was trained on these streams, and windows on disk are compared with them."""
    stock = parse_simulated_stock(f"sim:{name}")
    bars, paths = stock.bars(), stock.paths()
    sums = [values.sum() for values in (np.log(bars.to_numpy()), paths.step_mean, paths.step_sd)]
    np.testing.assert_allclose([bars["close"].iloc[-1], *sums], REFERENCE[name], rtol=1e-12)


def test_every_process_is_tested():
    assert set(CASES) == set(PROCESSES)


@pytest.mark.parametrize("tail", [1e6, 6.0])
@pytest.mark.parametrize("process", CASES)
def test_each_step_is_gaussian_around_its_stated_mean(process, tail):
    paths = simulate(process, tail=tail)
    z = ((paths.log_price - paths.step_mean) / paths.step_sd)[:, 1:]
    error = 4 / np.sqrt(z.size)
    assert abs(z.mean()) < error
    assert abs(z.var() - 1) < error * np.sqrt(2)
    assert abs((z**3).mean()) < error * np.sqrt(15)
    assert abs((z**4).mean() - 3) < error * np.sqrt(96)
    # nothing of the past foretells the shock: not the former one, not the stated mean or deviation
    for known in (z[:, :-1], np.diff(paths.step_mean[:, 1:]), np.log(paths.step_sd[:, 2:])):
        if known.std() > 1e-9:
            assert abs(np.corrcoef(known.ravel(), z[:, 1:].ravel())[0, 1]) < error


@pytest.mark.parametrize("process", CASES)
def test_each_step_has_its_variance(process):
    """The stated variance is that of the moves around the stated mean, heavy tails (unit variance) included."""
    heavy, light = (simulate(process, tail=tail) for tail in (6.0, 1e6))
    for paths in (heavy, light):
        moves = (paths.log_price - paths.step_mean)[:, 1:]
        assert np.mean(moves**2) == pytest.approx(np.mean(paths.step_sd[:, 1:] ** 2), rel=0.06)
    assert np.mean(heavy.step_sd**2) == pytest.approx(np.mean(light.step_sd**2), rel=0.06)
    assert heavy.step_sd.std() > light.step_sd.std() + 0.1 * SIGMA


def test_the_stated_means_follow_the_recursions():
    day = np.arange(ROWS)
    expected = {
        "gbm": lambda x: x[:, 1:-1] + 0.003,
        "ou": lambda x: 0.5 ** (1 / 4) * x[:, 1:-1],
        "ar": lambda x: x[:, 1:-1] + 0.4 * np.diff(x[:, :-1]),
        "trend": lambda x: 0.004 * day[2:] + 0.5 ** (1 / 6) * (x[:, 1:-1] - 0.004 * day[1:-1]),
        "seasonal": lambda x: wave[2:] + 0.5 ** (1 / 2) * (x[:, 1:-1] - wave[1:-1]),
        "stochvol": lambda x: x[:, 1:-1] + 0.001,
    }
    wave = 3 * SIGMA * np.sin(2 * np.pi * (day / 9 + 0.2))
    for process, mean in expected.items():
        paths = simulate(process, series=5)
        np.testing.assert_allclose(paths.step_mean[:, 2:], mean(paths.log_price), atol=1e-12, err_msg=process)
        if process != "stochvol":
            np.testing.assert_allclose(paths.step_sd, SIGMA)


def test_the_regimes_are_calm_and_up_or_wild_and_down():
    paths = simulate("regime")
    drift = paths.step_mean[:, 1:] - paths.log_price[:, :-1]
    wild = drift < 0
    np.testing.assert_allclose(drift, np.where(wild, -0.3, 0.3) * SIGMA, atol=1e-12)
    np.testing.assert_allclose(paths.step_sd[:, 1:], np.where(wild, 2.5, 1.0) * SIGMA)
    switches = (wild[:, 1:] != wild[:, :-1]).mean()
    assert switches == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / wild.size))


def test_stochastic_volatility_persists():
    log_vol = np.log(simulate("stochvol").step_sd / SIGMA)
    # stationary AR(1): variance .2^2 / (1 - .9^2), lag-1 correlation .9
    assert log_vol.var() == pytest.approx(0.04 / 0.19, rel=0.05)
    assert np.corrcoef(log_vol[:, :-1].ravel(), log_vol[:, 1:].ravel())[0, 1] == pytest.approx(0.9, abs=0.01)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean, and four of its standard errors; the N series [N, T] are independent, their days are not."""
    means = values.mean(axis=1)
    return means.mean(), 4 * means.std() / np.sqrt(len(means))


def test_the_variance_of_garch_follows_its_recursion():
    paths = simulate("garch", series=3)
    for log_price, sd in zip(paths.log_price, paths.step_sd, strict=True):
        variance = SIGMA**2
        for t in range(ROWS):
            assert sd[t] ** 2 == pytest.approx(variance, rel=1e-12)
            shock = log_price[t] - (log_price[t - 1] if t else 0) - 0.001
            variance = 0.05 * SIGMA**2 + 0.15 * shock**2 + 0.8 * variance


def test_heston_has_the_moments_of_its_stationary_law():
    """Means, autocovariance and leverage of the variance, in units of sigma^2, in closed form for four steps a day."""
    paths = simulate("heston", rows=200)
    leverage = (np.diff(paths.log_price) - (paths.log_price - paths.step_mean)[:, 1:] - 0.001) / (-0.6 * SIGMA)
    variance = (paths.step_sd / SIGMA) ** 2 / (1 - 0.6**2)
    decay = 1 - 0.2 / 4  # of a step
    # Euler's steps of a fourth: Var u = .3^2 / 4 / (1 - decay^2)
    of_u = 0.3**2 / 4 / (1 - decay**2)
    steps = np.arange(4)
    same_day = of_u * (decay ** np.abs(steps[:, None] - steps)).mean()
    next_day = of_u * (decay ** (4 + steps[:, None] - steps)).mean()
    response = 0.3 * (decay ** (4 + steps[:, None] - steps - 1)).mean()
    for values, want in (
        (variance, 1.0),
        (leverage**2, 1.0),
        ((variance - 1) ** 2, same_day),
        ((variance[:, 1:] - 1) * (variance[:, :-1] - 1), next_day),
        (leverage[:, :-1] * variance[:, 2:], response),
        (np.diff(paths.log_price - 0.001 * np.arange(200)) ** 2, SIGMA**2),
    ):
        mean, error = mean_and_error(values)
        assert abs(mean - want) < error
        assert error < 0.1 * want


def test_jumps_come_at_their_rate_and_size():
    paths = simulate("jump")
    jumps = ((paths.step_sd / SIGMA) ** 2 - 1) / 2.0**2
    np.testing.assert_allclose(jumps, np.round(jumps), atol=1e-9)
    drift = paths.step_mean[:, 1:] - paths.log_price[:, :-1]
    np.testing.assert_allclose(drift, 0.001 - 1.5 * SIGMA * jumps[:, 1:], atol=1e-12)
    mean, error = mean_and_error(jumps)
    assert abs(mean - 0.1) < error
    mean, error = mean_and_error((jumps - 0.1) ** 2)  # Poisson: the variance is the mean
    assert abs(mean - 0.1) < error


@pytest.mark.parametrize("process", ["ou", "trend", "seasonal"])
def test_theta_is_another_way_to_say_half_life(process):
    by_theta = parse_simulated_stock(f"sim:{process}?theta=0.1&rows=50")
    assert by_theta.parameters["half_life"] == pytest.approx(np.log(2) / 0.1, rel=1e-15)
    closes = parse_simulated_stock(f"sim:{process}?half_life=6.931471805599453&rows=50").bars()["close"]
    np.testing.assert_allclose(by_theta.bars()["close"], closes, rtol=1e-12)
    paths = by_theta.paths()
    if process == "ou":  # one step keeps exp(-theta) of the distance from log 100
        kept = (paths.step_mean[0, 1:] - np.log(100)) / (paths.log_price[0, :-1] - np.log(100))
        np.testing.assert_allclose(kept, np.exp(-0.1), rtol=1e-9)


def test_bars_hold_the_simulated_closes():
    stock = parse_simulated_stock("sim:ou?rows=300&seed=3")
    bars = stock.bars()
    np.testing.assert_allclose(np.log(bars["close"]), stock.paths().log_price[0])
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert bars.equals(stock.bars())
    assert not bars.equals(parse_simulated_stock("sim:ou?rows=300&seed=4").bars())


def test_the_longest_stock_still_has_days():
    bars = parse_simulated_stock("sim:gbm?rows=65000&sigma=0.001").bars()
    assert bars.index[-1].year < 2262
    assert (np.diff(bars.index.to_numpy(dtype="datetime64[ns]")) > np.timedelta64(0)).all()


def test_days_lead_to_rows():
    stock = parse_simulated_stock("sim:gbm?rows=30")
    days = stock.bars().index.to_numpy(dtype="datetime64[ns]")
    np.testing.assert_array_equal(stock.rows_of(days[[3, 29, 0]]), [3, 29, 0])
    weekend, later = np.datetime64("2000-01-08", "ns"), np.datetime64("2001-01-01", "ns")
    np.testing.assert_array_equal(stock.rows_of(np.array([weekend, later])), [-1, -1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sim:nothing", "unknown process 'nothing'"),
        ("sim:ou?halflife=3", "unknown parameter 'halflife'"),
        ("sim:ou?half_life=x", "must be a number; got 'x'"),
        ("sim:ou?half_life=nan", "must be in"),
        ("sim:ou?sigma=-1", r"must be in \[0\.0001, 1\]; got -1"),
        ("sim:ou?half_life=3&theta=0.1", "half_life and theta = ln 2 / half_life say the same; give one"),
        ("sim:ou?theta=0", r"parameter 'theta' must be in \[6.93147e-05, 6.93147\]"),
        ("sim:gbm?theta=0.1", "unknown parameter 'theta'; there are rows, seed, sigma, tail, drift"),
        ("sim:ou?sigma=0.1&sigma=0.2", "parameter 'sigma' is given twice"),
        ("sim:ou?rows=10.5", "parameter 'rows' must be a whole number; got '10.5'"),
        ("sim:ou?rows=0", r"parameter 'rows' must be in \[2, 65000\]"),
        ("sim:ou?rows=1e6", r"parameter 'rows' must be in \[2, 65000\]"),
        ("sim:ou?seed=-1", "parameter 'seed' must be in"),
        (
            "sim:garch?alpha=0.5&beta=0.6",
            "alpha [+] beta must be at most 0.999, else the variance has no mean; got 1.1",
        ),
    ],
)
def test_a_wrong_name_is_explained(name, message):
    with pytest.raises(SimulationError, match=message):
        parse_simulated_stock(name)
