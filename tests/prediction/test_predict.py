"""Forecasts of the days after the last bar: from Python, from the command line, from a server."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from grpo.config import RunConfig
from grpo.evaluation.harness import evaluate
from grpo.evaluation.protocol import Forecast
from grpo.language.config import PromptConfig
from grpo.language.prompts import STYLES
from grpo.models.adapters import RECORD_FILE, ModelError
from grpo.models.spec import ModelSpec
from grpo.prediction.command import main
from grpo.prediction.files import PriceForecast, price_text, to_json, to_table
from grpo.prediction.forecast import (
    PredictConfig,
    PredictionError,
    StockForecaster,
    forecast_bars,
    forecast_csv,
    latest_context,
    load_forecaster,
)
from grpo.runs.log import stage_entry
from grpo.sampling.config import GenerationConfig
from grpo.sampling.endpoint import EndpointError, EndpointForecaster
from grpo.sampling.forecaster import load_llm_forecaster
from preprocessing.bars import MarketDataError
from tests.tiny_adapters import publish_random_adapter, record_of
from tests.tiny_models import save_tiny_model
from tests.windows_factory import simulated_bars, simulated_windows

WINDOWS = simulated_windows()
BARS = simulated_bars()
ROW = 3  # of the test windows


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return publish_random_adapter(RunConfig(seed=5), tmp_path_factory.mktemp("m") / "grpo_lora_1st", WINDOWS["train"])


@pytest.fixture(scope="module")
def loaded(adapter) -> StockForecaster:
    return load_forecaster(adapter)


def until(origin: np.datetime64) -> pd.DataFrame:
    return BARS.loc[:origin]


def write_csv(bars: pd.DataFrame, file: Path) -> Path:
    table = bars.rename(columns=str.title)
    table["Adj Close"] = table["Close"]
    table["Volume"] = 1000
    table.to_csv(file, index_label="Date", date_format="%Y-%m-%d")
    return file


def test_a_prediction_is_what_the_comparison_samples(adapter, loaded):
    window = WINDOWS["test"].take(np.array([ROW]))
    language_model = load_llm_forecaster(
        ModelSpec(adapter=adapter), PromptConfig(), GenerationConfig(), name="grpo_1st"
    )
    compared = evaluate(language_model, window, num_samples=30, seed=11).forecast
    bars = until(window.context.origin[0])
    result = forecast_bars(loaded, "X", bars, num_samples=30, seed=11)
    assert np.array_equal(result.samples, compared.samples[0][compared.valid[0]])
    assert result.last_close == window.context.last_price[0]
    assert result.dates == tuple(np.datetime_as_string(window.truth.dates[0], unit="D"))
    base = forecast_bars(load_forecaster(model="embedded"), "X", bars, num_samples=30, seed=11)
    assert not np.array_equal(base.samples, result.samples), "the adapter must change what the model says"


def test_the_latest_context_is_the_windows_but_for_a_scale_that_no_prompt_shows(loaded):
    window = WINDOWS["test"].take(np.array([ROW])).context
    context = latest_context("sim", until(window.origin[0]), loaded.record)
    np.testing.assert_array_equal(context.past, window.past)
    differing = [
        name for name in ("norm_mean", "norm_std", "rsi", "adx", "volatility", "past_ar1")
        if context.feature(name)[0] != window.feature(name)[0]
    ]  # fmt: skip
    assert differing == ["norm_mean", "norm_std"]
    prompts = [STYLES["direct"].render(one, 10) for one in (context, window)]
    assert prompts[0] == prompts[1]
    closes = until(window.origin[0])["close"]
    assert context.feature("norm_mean")[0] == pytest.approx(closes.mean(), rel=1e-12)


def test_three_lines_of_python(adapter, tmp_path):
    forecaster = load_forecaster(str(adapter))
    result = forecast_csv(forecaster, write_csv(BARS, tmp_path / "AAPL.csv"))
    again = forecast_csv(forecaster, tmp_path / "AAPL.csv")
    assert result.stock == "AAPL"
    assert result.samples.shape == (len(result.samples), 10)
    assert 90 < len(result.samples) <= 100
    assert np.array_equal(result.samples, again.samples)
    assert not np.array_equal(result.samples, forecast_csv(forecaster, tmp_path / "AAPL.csv", seed=1).samples)
    assert result.last_close == pytest.approx(BARS["close"].iloc[-1], rel=1e-12)
    assert (result.model, result.adapter, result.rows) == ("embedded", str(adapter), len(BARS))
    assert result.origin == str(BARS.index[-1])[:10]


def known_forecast(**changes) -> PriceForecast:
    """Nine samples 10, 20 .. 90 on the first day and ten times that on the second; the last close is 40."""
    values = {
        "stock": "X", "origin": "2024-01-05", "past": np.array([50.0, 40.0]), "dates": ("2024-01-08", "2024-01-09"),
        "samples": np.outer(np.arange(90, 0, -10.0), [1, 10]), "num_samples": 10, "seed": 3, "model": "embedded",
        "adapter": None, "adapter_sha256": None, "source": "X.csv", "source_sha256": "ab", "first_date": "2020-01-02",
        "rows": 7,
    }  # fmt: skip
    return PriceForecast(**{**values, **changes})


def test_the_table_shows_median_and_80_percent_interval():
    lines = to_table(known_forecast()).splitlines()
    assert lines[0] == "X: last close 40.00 on 2024-01-05"
    # order statistics at 0.1 x 10 = 1 and 0.9 x 10 = 9 of nine
    assert lines[2].split() == ["1", "2024-01-08", "50.00", "10.00", "to", "90.00", "+25.00%"]
    assert lines[3].split() == ["2", "2024-01-09", "500.00", "100.00", "to", "900.00", "+1150.00%"]
    assert lines[4] == "1 of 10 answers were no forecast and are left out"
    undated = to_table(known_forecast(dates=None, num_samples=9)).splitlines()
    assert undated[2].split() == ["1", "50.00", "10.00", "to", "90.00", "+25.00%"]
    assert len(undated) == 4


def test_the_json_holds_quantiles_and_what_they_were_made_of():
    values = json.loads(to_json(known_forecast()))
    assert values["median"] == [50, 500]
    np.testing.assert_allclose(values["quantiles"]["0.3"], [30, 300], rtol=1e-12)
    assert values["quantiles"]["0.05"] == [10, 100], "never beyond the samples"
    assert (values["valid_samples"], values["num_samples"], values["seed"]) == (9, 10, 3)
    assert values["dates"] == ["2024-01-08", "2024-01-09"]
    assert values["samples"][0] == [90, 900]


def run(*arguments: object) -> int:
    return stage_entry(lambda: main([str(argument) for argument in arguments]))


def test_the_command_forecasts_many_and_names_the_refused(adapter, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    good = write_csv(BARS, data / "GOOD.csv")
    write_csv(BARS.iloc[:50], data / "SHORT.csv")
    (data / "BAD.csv").write_text("Date,Open\n")
    extra = write_csv(BARS.iloc[:200], tmp_path / "EXTRA.csv")
    out = tmp_path / "out"
    code = run("--adapter", adapter, "--csv", extra, "--data-dir", data, "--num-samples", 24, "--output_dir", out)
    printed = capsys.readouterr()
    assert code == 1
    assert sorted(path.name for path in out.iterdir()) == ["EXTRA.json", "EXTRA.png", "GOOD.json", "GOOD.png"]
    assert "GOOD: last close" in printed.out
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: BAD.csv: ")
    assert "lacks the column(s)" in errors[0]
    assert errors[1].startswith("error: SHORT.csv: SHORT has 50 rows, but a forecast needs ")
    assert errors[2] == "error: 2 of 4 CSVs could not be forecast (see above)"
    values = json.loads((out / "GOOD.json").read_text())
    direct = forecast_csv(load_forecaster(adapter), good, num_samples=24)
    assert values["samples"] == direct.samples.tolist(), "a forecast does not depend on the others"
    picture = matplotlib.image.imread(out / "GOOD.png")
    assert picture.shape[0] > 400
    assert len(np.unique(picture[:, :, :3].reshape(-1, 3), axis=0)) > 20


def test_several_files_follow_one_flag(adapter, tmp_path, capsys):
    files = [write_csv(BARS, tmp_path / f"{name}.csv") for name in "AB"]
    out = tmp_path / "out"
    third = write_csv(BARS, tmp_path / "C.csv")
    flags = ("--output_dir", out, "--csv", *files, "--num-samples", 20, f"--csv={third}", "--adapter", adapter)
    assert run(*flags) == 0
    assert sorted(path.name for path in out.glob("*.json")) == ["A.json", "B.json", "C.json"]
    assert capsys.readouterr().out.endswith(f"3 forecast(s) written to {out}\n")


def refused(capsys, *arguments: object) -> str:
    assert run(*arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_unusable_adapters_are_refused_in_one_line(adapter, tmp_path, capsys):
    csv = write_csv(BARS, tmp_path / "A.csv")
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    flags = ("--csv", csv, "--adapter", copy)
    assert "was trained with 30; leave the flag out" in refused(capsys, *flags, "--window", 20)
    tiny = save_tiny_model("qwen2", tmp_path / "tiny")
    assert "was trained on base model 'embedded', but --model is 'tiny'" in refused(capsys, *flags, "--model", tiny)
    weights = load_file(copy / "adapter_model.safetensors")
    (copy / "adapter_model.safetensors").write_bytes((copy / "adapter_model.safetensors").read_bytes()[:-9])
    assert f"adapter {copy} cannot be loaded" in refused(capsys, *flags)
    save_file(weights, copy / "adapter_model.safetensors", metadata={"format": "pt"})
    rewrite(copy / RECORD_FILE, base_sha256="0" * 64)
    assert "whose weights are not those of this version" in refused(capsys, *flags)
    (copy / RECORD_FILE).unlink()
    assert f"has no {RECORD_FILE}" in refused(capsys, *flags)
    assert "there is no such folder" in refused(capsys, "--csv", csv, "--adapter", tmp_path / "nowhere")


def test_an_adapter_of_a_folder_asks_for_the_folder(tmp_path):
    tiny = save_tiny_model("qwen2", tmp_path / "tiny-base")
    adapter = publish_random_adapter(RunConfig(model=str(tiny)), tmp_path / "adapter")
    with pytest.raises(ModelError, match="trained on 'tiny-base'; where that was a folder, name it with --model DIR"):
        load_forecaster(adapter)
    assert load_forecaster(adapter, model=str(tiny)).model == str(tiny)


def test_unusable_files_and_flags_are_refused_in_one_line(tmp_path, capsys):
    assert "give --csv FILE or --data-dir DIR" in refused(capsys)
    (tmp_path / "a").mkdir()
    files = [write_csv(BARS, tmp_path / "X.csv"), write_csv(BARS, tmp_path / "a" / "X.csv")]
    assert "would both write X.json" in refused(capsys, "--csv", *files)
    assert "is no folder" in refused(capsys, "--data-dir", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="belong together"):
        PredictConfig(endpoint="http://localhost:1/v1")
    with pytest.raises(ValueError, match="num_samples must be at least 2"):
        PredictConfig(num_samples=1)


def test_a_model_that_cannot_answer_is_said_so(loaded):
    class Mute:
        name = "mute"

        def predict(self, context, *, horizon, num_samples, seed):
            samples = np.full((1, num_samples, horizon), np.nan)
            return Forecast(samples=samples, valid=np.isfinite(samples).all(-1), texts=(("hello",) * num_samples,))

    mute = dataclasses.replace(loaded, forecaster=Mute())
    with pytest.raises(PredictionError, match="0 of 25 answers were a forecast; the first: 'hello'"):
        forecast_bars(mute, "X", BARS, num_samples=25)


class FakeServer:
    """OpenAI's chat completions on loopback: `reply(body)` gives a status and the answer."""

    def __init__(self, reply):
        self.bodies: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append({"path": self.path, **body})
                status, answer = reply(body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


def choices(*texts: str, finish: str = "stop") -> dict:
    return {"choices": [{"message": {"content": text}, "finish_reason": finish} for text in texts]}


def test_a_served_model_is_asked_in_the_same_words_and_read_the_same_way():
    server = FakeServer(lambda body: (200, choices(*["510 " * 10] * (body["n"] - 1), "500 words")))
    context = WINDOWS["test"].context.take(np.array([0, 1]))
    forecaster = EndpointForecaster(server.address + "/", "aapl", PromptConfig())
    forecast = forecaster.predict(context, horizon=10, num_samples=70, seed=3)
    assert [body["n"] for body in server.bodies] == [64, 6, 64, 6]
    assert len({body["seed"] for body in server.bodies}) == 4
    assert server.bodies[0]["path"] == "/v1/chat/completions"
    assert [body["messages"] for body in server.bodies[::2]] == STYLES["direct"].render(context, 10)
    settings = {key: server.bodies[0][key] for key in ("model", "temperature", "top_p", "top_k", "repetition_penalty")}
    assert settings == {"model": "aapl", "temperature": 1, "top_p": 1, "top_k": -1, "repetition_penalty": 1}
    assert forecast.valid.sum(1).tolist() == [68, 68]
    price = context.last_price * np.exp(context.feature("volatility"))  # 10 points: one daily standard deviation
    np.testing.assert_allclose(forecast.samples[:, 0, :], np.repeat(price[:, None], 10, axis=1), rtol=1e-12)
    assert forecaster.predict(context, horizon=10, num_samples=70, seed=3).texts == forecast.texts
    assert server.bodies[0] == server.bodies[4], "the seed alone decides what is asked"


def test_an_answer_that_the_server_cut_off_is_invalid():
    server = FakeServer(lambda body: (200, choices("500 " * 10, finish="length")))
    context = WINDOWS["test"].context.take(np.array([0]))
    forecast = EndpointForecaster(server.address, "m", PromptConfig()).predict(
        context, horizon=10, num_samples=1, seed=0
    )
    assert not forecast.valid.any()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((404, {"error": "no model m"}), "answered 404 to 'm': .*no model m"),
        ((200, {"choices": [{}]}), "does not answer as chat completions do"),
        ((200, choices("500")), "gave 1 answers where 3 were asked for"),
    ],
)
def test_a_server_that_refuses_is_named(reply, message):
    server = FakeServer(lambda body: reply)
    context = WINDOWS["test"].context.take(np.array([0]))
    with pytest.raises(EndpointError, match=message) as caught:
        EndpointForecaster(server.address, "m", PromptConfig()).predict(context, horizon=10, num_samples=3, seed=0)
    assert server.address in str(caught.value)


def test_a_served_adapter_from_the_command_line(adapter, tmp_path, capsys):
    server = FakeServer(lambda body: (200, choices(*["510 " * 10] * body["n"])))
    csv = write_csv(BARS, tmp_path / "A.csv")
    flags = ("--adapter", adapter, "--csv", csv, "--output_dir", tmp_path, "--served-model", "aapl")
    assert run(*flags, "--endpoint", server.address) == 0
    assert json.loads((tmp_path / "A.json").read_text())["valid_samples"] == 100
    server.server.shutdown()
    server.server.server_close()
    assert "cannot be reached" in refused(capsys, *flags, "--endpoint", server.address)


def test_bars_within_a_day_keep_their_time(loaded):
    hourly = BARS.set_axis(pd.date_range("2024-01-02 09:30", periods=len(BARS), freq="h", name="date"))
    result = forecast_bars(loaded, "X", hourly, num_samples=20)
    assert result.first_date == "2024-01-02T09:30"
    assert result.origin == str(hourly.index[-1])[:16].replace(" ", "T")
    ahead = [hourly.index[-1] + pd.Timedelta(hours=step) for step in range(1, loaded.record.horizon + 1)]
    assert result.dates == tuple(f"{time:%Y-%m-%dT%H:%M}".removesuffix("T00:00") for time in ahead)
    assert result.interval == "1h"
    assert to_table(result).splitlines()[1].startswith(" bar  date")


def test_frames_of_every_order_and_spelling_give_one_forecast(loaded):
    def samples(frame) -> np.ndarray:
        return forecast_bars(loaded, "X", frame, num_samples=20).samples

    expected = samples(BARS)
    yahoo = BARS.rename(columns=str.title).assign(**{"Adj Close": BARS["close"]})
    for frame in (BARS[::-1], yahoo, yahoo.tz_localize("America/New_York"), pd.concat({"X": yahoo}, axis=1)):
        np.testing.assert_array_equal(samples(frame), expected)
    spoiled = BARS.copy()
    spoiled.iloc[-1, spoiled.columns.get_loc("close")] *= 10
    with pytest.raises(MarketDataError, match=r"X: row .*, column high: .* leaves the bar's prices"):
        samples(spoiled)
    with pytest.raises(PredictionError, match=r"X: the frame holds several stocks \(A, B\); give those of one"):
        samples(pd.concat({"A": yahoo, "B": yahoo}, axis=1))


@pytest.mark.parametrize(
    ("price", "text"),
    [(12345.678, "12345.68"), (40.0, "40.00"), (1.10346, "1.1035"), (0.5, "0.50000"), (0.00001234567, "0.000012346")],
)
def test_prices_of_any_size_print_with_enough_digits(price, text):
    assert price_text(price) == text


def test_records_of_models_alone_follow_the_flags(tmp_path):
    record = record_of(RunConfig(), "base")
    assert load_forecaster(model="embedded").record.window == record.window == 30
