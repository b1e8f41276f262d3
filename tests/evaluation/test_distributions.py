"""The whole analysis: its verdicts where the truth is known, its pictures, its command, and samples of a comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from baselines.analyze_distributions.__main__ import main
from grpo.evaluation.distributions import analysis
from grpo.evaluation.distributions.analysis import SampleError, compare_distributions
from grpo.evaluation.distributions.samples import SAMPLES_PER_WINDOW, RunFilesError, samples_of_run
from grpo.evaluation.forecast_files import write_forecasts_table
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast
from preprocessing.combined_preprocessor import main as preprocess
from preprocessing.returns import VolatilityConfig, daily_volatility
from preprocessing.sequence_files import write_sequences
from preprocessing.windows import WindowSet
from preprocessing.windows_reader import read_windows

PICTURES = [
    "histogram",
    "kde",
    "qq",
    "box",
    "cdf",
    "statistics",
    "sample_sequences",
    "mean_trend",
    "autocorrelation",
    "evolution",
]


def noise(seed: int, count: int = 300, length: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, length))


def test_equal_laws_differ_as_often_as_chance_has_it():
    verdicts = [measure.differs for seed in range(8) for measure in compared(noise(seed), noise(100 + seed)).measures]
    # 5 % of 112 are 6; the measures of one report are not independent
    assert sum(verdicts) <= 17
    assert any(verdicts)


@pytest.mark.parametrize(
    "generated, differing, alike",
    [
        (0.3 + noise(1), {"Kolmogorov-Smirnov", "Wasserstein-1", "mean", "squared MMD"}, {"std", "autocorrelation"}),
        (1.3 * noise(1), {"Wasserstein-1", "std", "distance between two", "classifier AUC"}, {"mean", "skew"}),
        (np.sort(noise(1), axis=1), {"autocorrelation", "squared MMD", "classifier AUC"}, {"mean", "std", "kurtosis"}),
        (noise(1)[np.arange(300) // 2], {"share of duplicates", "distance to the nearest"}, {"mean", "std"}),
    ],
    ids=["shifted", "wider", "sorted", "doubled"],
)
def test_what_differs_is_named(generated, differing, alike):
    found = compared(noise(0), generated)
    names = {measure.name for measure in found.measures if measure.differs}
    assert differing <= names
    assert not alike & names


def test_numbers_of_the_report_are_those_of_the_samples():
    real, generated = noise(0), 2 + 3 * noise(1)
    found = compared(real, generated)
    std = found.measure("std")
    assert (std.real, std.generated) == (pytest.approx(real.std()), pytest.approx(generated.std()))
    assert std.distance == pytest.approx(abs(real.std() - generated.std()))
    assert std.noise < std.bound < 0.1 < std.distance
    assert std.p_value == 1 / (1 + analysis.REPLICATES)
    assert (found.diversity_size, found.mmd_sizes, found.classifier_sizes) == (150, (300, 300), (300, 300))
    assert (found.lags, found.bins) == (7, 50)
    content = json.loads(found.json())
    assert content["measures"][6] | {"distance": 0} == {
        "name": "std",
        "distance": 0,
        "noise": std.noise,
        "bound": std.bound,
        "p_value": std.p_value,
        "real": std.real,
        "generated": std.generated,
        "differs": True,
    }
    row = next(line for line in found.markdown().splitlines() if line.startswith("| std "))
    shown = [f"{value:.4g}" for value in (std.real, std.generated, std.distance, std.noise, std.bound)]
    assert [cell.strip() for cell in row.split("|")][2:7] == shown


def test_noise_is_that_of_two_independent_samples():
    found = compared(noise(0, 400), noise(1, 100))
    # the mean of n T standard normal values has variance 1 / (n T); E|N(0, s^2)| = s sqrt(2 / pi)
    expected = np.sqrt((1 / 400 + 1 / 100) / 8) * np.sqrt(2 / np.pi)
    assert found.measure("mean").noise == pytest.approx(expected, rel=0.35)


def test_the_same_seed_gives_the_same_report_and_another_another():
    real, generated = noise(0), noise(1)
    assert compare_distributions(real, generated, 3) == compare_distributions(real, generated, 3)
    assert compare_distributions(real, generated, 3) != compare_distributions(real, generated, 4)


@pytest.mark.parametrize(
    "real, generated, reason",
    [
        (noise(0), noise(1, length=7), "the real sequences have 8 values and the generated 7"),
        (noise(0, 10), noise(1), "the real sample is 10 x 8; at least 20 sequences of 2 values are needed"),
        (noise(0), noise(1)[:, :1], "the generated sample is 300 x 1;"),
        (noise(0), np.full((300, 8), 0.5), "the generated sequences all hold one and the same number, 0.5"),
        (np.where(noise(0) > 3, np.inf, noise(0)), noise(1), "the real sequences hold values that are not finite"),
    ],
)
def test_refuses_what_cannot_be_compared(real, generated, reason):
    with pytest.raises(SampleError) as refused:
        compare_distributions(real, generated)
    assert reason in str(refused.value)


def test_the_command_writes_report_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(analysis, "REPLICATES", 19)
    write_sequences(tmp_path / "real.txt", noise(0, 60))
    write_sequences(tmp_path / "generated.txt", 0.5 + noise(1, 50))
    files = ["--real", str(tmp_path / "real.txt"), "--generated", str(tmp_path / "generated.txt")]
    assert main([*files, "--output-dir", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "60 real and 50 generated sequences of 8 values" in shown
    assert (tmp_path / "out" / "report.md").read_text() in shown
    assert json.loads((tmp_path / "out" / "report.json").read_text())["generated_shape"] == [50, 8]
    for name in PICTURES:
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").iterdir())) == len(PICTURES) + 2


def test_wrong_input_is_one_line(tmp_path, capsys):
    write_sequences(tmp_path / "real.txt", noise(0, 60))
    (tmp_path / "words.txt").write_text("1 2\n3 four\n")
    real = ["--real", str(tmp_path / "real.txt")]
    for arguments, reason in (
        (real, "give either --real and --generated, or --run and --forecaster"),
        ([*real, "--run", "results/x"], "give either"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert refused.value.code == 2
        assert reason in one_line(capsys.readouterr().err)
    outcomes = {
        ("--generated", str(tmp_path / "words.txt")): "line 2, column 3: 'four' is no finite number",
        ("--generated", str(tmp_path / "none.txt")): "none.txt cannot be read",
    }
    for arguments, reason in outcomes.items():
        assert main([*real, *arguments, "--output-dir", str(tmp_path / "out")]) == 2
        assert reason in one_line(capsys.readouterr().err)
    assert main(["--run", str(tmp_path), "--forecaster", "fhs"]) == 2
    assert "make it with `python -m grpo.stages.compare_models`" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose forecaster `fine` samples Gaussian walks and `broken` answers nonsense half the time."""
    folder = tmp_path_factory.mktemp("run")
    preprocess(["--stock", "sim:gbm?rows=1200", "--output_dir", str(folder / "data")])
    windows = windows_of(folder)
    shocks = np.random.default_rng(0).standard_normal((len(windows), 30, windows.horizon))
    scale = daily_volatility(windows.context, VolatilityConfig())[:, None, None]
    samples = windows.context.last_price[:, None, None] * np.exp(np.cumsum(scale * shocks, axis=2))
    evaluations = []
    for name, invalid in (("fine", slice(0, 0)), ("broken", slice(0, None, 2))):
        valid = np.ones(samples.shape[:2], dtype=bool)
        valid[:, invalid] = False
        forecast = Forecast(samples=np.where(valid[:, :, None], samples, np.nan), valid=valid)
        scores = score_windows(forecast, windows)
        evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=0.0))
    write_forecasts_table(evaluations, windows.context, folder / "model_comparison" / "forecasts.parquet")
    return folder, shocks


def test_samples_of_a_comparison_are_returns_in_units_of_volatility(run):
    folder, shocks = run
    windows = windows_of(folder)
    found = samples_of_run(folder, "fine")
    kept = np.arange(0, len(windows), windows.horizon)  # one stock, an origin a day
    closes = np.column_stack([windows.context.last_price, windows.truth.future])
    unit = daily_volatility(windows.context, VolatilityConfig())
    np.testing.assert_allclose(found.real, (np.diff(np.log(closes), axis=1) / unit[:, None])[kept], rtol=1e-10)
    expected = shocks[kept, :SAMPLES_PER_WINDOW].reshape(-1, windows.horizon)
    np.testing.assert_allclose(found.generated, expected, atol=1e-4)  # prices are kept as float32
    assert f"{len(kept)} test windows that do not overlap, of {len(windows)}" in found.origin
    halved = samples_of_run(folder, "broken")
    np.testing.assert_allclose(halved.generated, expected[1::2], atol=1e-4)
    assert f"({len(kept) * SAMPLES_PER_WINDOW // 2} invalid answers left out)" in halved.origin


def test_a_run_without_what_is_needed_is_refused(run, tmp_path):
    folder, _ = run
    with pytest.raises(RunFilesError, match=r"no forecaster 'fhs'; there are broken, fine"):
        samples_of_run(folder, "fhs")
    (tmp_path / "model_comparison").mkdir()
    table = tmp_path / "model_comparison" / "forecasts.parquet"
    table.write_bytes(b"PAR1 and no more")
    with pytest.raises(RunFilesError, match="is not a table of forecasts"):
        samples_of_run(tmp_path, "fine")
    table.write_bytes((folder / "model_comparison" / "forecasts.parquet").read_bytes())
    with pytest.raises(RunFilesError, match="holds 0 files"):
        samples_of_run(tmp_path, "fine")


def compared(real: np.ndarray, generated: np.ndarray) -> analysis.DistributionReport:
    return compare_distributions(real, generated, seed=0)


def windows_of(folder) -> WindowSet:
    (x,) = (folder / "data").glob("*_test_x.csv")
    return read_windows(x, x.with_name(x.name.replace("_x.", "_y.")))


def one_line(text: str) -> str:
    assert text.count("\n") == 1
    return text
