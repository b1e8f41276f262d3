"""The law that each simulated process states, against its recursion and against Monte Carlo."""

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


@pytest.mark.parametrize("name, decay", [("gbm?drift=0.003", 1.0), ("ou?half_life=4", 0.5 ** (1 / 4))])
def test_the_conditional_law_composes_the_single_steps(name, decay):
    horizon, last = 6, np.array([80.0, 100.0, 130.0])
    mean, covariance = parse_simulated_stock(f"sim:{name}&sigma={SIGMA}").conditional_law(last, horizon) or (None, None)
    expected, x = np.empty((3, horizon)), np.log(last)
    for step in range(horizon):
        x = x + 0.003 if decay == 1 else np.log(100) + decay * (x - np.log(100))
        expected[:, step] = x
    np.testing.assert_allclose(mean, expected)
    shocks_reach = np.array([[decay ** (h - j) if j <= h else 0.0 for j in range(horizon)] for h in range(horizon)])
    np.testing.assert_allclose(covariance, SIGMA**2 * shocks_reach @ shocks_reach.T, atol=1e-15)


@pytest.mark.parametrize("process", ["gbm", "ou"])
def test_the_conditional_law_is_that_of_simulated_futures(process):
    paths = simulate(process, series=20_000, rows=20)
    query = "&".join(f"{name}={value}" for name, value in ({"sigma": SIGMA} | CASES[process]).items())
    law = parse_simulated_stock(f"sim:{process}?{query}").conditional_law(100 * np.exp(paths.log_price[:, 9]), 10)
    assert law is not None
    mean, covariance = law
    future = np.log(100) + paths.log_price[:, 10:]
    sd = np.sqrt(np.diag(covariance))
    z = (future - mean) / sd
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(20_000)
    np.testing.assert_allclose(np.cov(z.T), covariance / np.outer(sd, sd), atol=4 * np.sqrt(2 / 20_000))
    known = paths.log_price[:, 9]
    assert max(abs(np.corrcoef(known, z[:, h])[0, 1]) for h in range(10)) < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("name", ["ar", "trend", "seasonal", "regime", "stochvol", "ou?tail=5", "gbm?tail=5"])
def test_no_law_is_stated_where_the_last_price_does_not_fix_it(name):
    assert parse_simulated_stock(f"sim:{name}").conditional_law(np.array([100.0]), 3) is None


def test_bars_hold_the_simulated_closes():
    stock = parse_simulated_stock("sim:ou?rows=300&seed=3")
    bars = stock.bars()
    np.testing.assert_allclose(np.log(bars["close"]), stock.paths().log_price[0])
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert bars.equals(stock.bars())
    assert not bars.equals(parse_simulated_stock("sim:ou?rows=300&seed=4").bars())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sim:nothing", "unknown process 'nothing'"),
        ("sim:ou?halflife=3", "unknown parameter 'halflife'"),
        ("sim:ou?half_life=x", "must be a number; got 'x'"),
        ("sim:ou?half_life=nan", "must be in"),
        ("sim:ou?sigma=-1", "must be in"),
    ],
)
def test_a_wrong_name_is_explained(name, message):
    with pytest.raises(SimulationError, match=message):
        parse_simulated_stock(name)
