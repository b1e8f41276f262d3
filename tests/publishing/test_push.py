"""Adapters to and from a Hub on loopback, each command in a process of its own, as a user would call it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from grpo.config import RunConfig, to_yaml
from grpo.models.adapters import RECORD_FILE
from grpo.models.config import EMBEDDED
from grpo.models.download import HubError, locate_adapter
from grpo.prediction.forecast import forecast_csv, load_forecaster
from grpo.publishing.card import model_card
from grpo.publishing.config import HubConfig
from grpo.publishing.push import push_run, require_pushable
from grpo.runs.folder import stage_folder
from grpo.runs.resume import run_stage
from grpo.runs.stages import ADAPTER_STAGES, stage_of
from grpo.stages.training_settings import upload
from preprocessing.combined_preprocessor import REPORT_FILE
from preprocessing.files import sha256
from tests.hub_server import TOKEN, HubServer, Repository
from tests.tiny_adapters import publish_random_adapter
from tests.tiny_models import save_tiny_model
from tests.tiny_runs import paths_of
from tests.windows_factory import simulated_bars, simulated_windows

ROOT = Path(__file__).parents[2]
TRAIN = simulated_windows()["train"]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunConfig:
    """A run of the embedded model whose stage 1 and comparison are done."""
    config = RunConfig(
        stock="sim:ou?rows=300&seed=4",
        run_dir=tmp_path_factory.mktemp("runs") / "run",
        hub=HubConfig(repo_id="me/demo", license="mit"),
    )
    make_run(config)
    return config


def make_run(config: RunConfig) -> None:
    """Stage 1 with random weights, and the records of preprocessing and of a comparison."""
    adapter = paths_of(config).adapters["grpo_lora_1st"]

    def train(_):
        publish_random_adapter(config, adapter, TRAIN)
        return {"last_reward": -0.5}

    parts: dict[str, Any] = {"sections": {"model": config.model}, "outputs": {"adapter": adapter}}
    run_stage("stage1", config.run_folder, seed=0, inputs={}, body=train, **parts)
    report = {
        "cut": {"val_start": "2019-05-06", "test_start": "2019-07-08"},
        "stocks": {config.stock: {"first_date": "2018-01-01", "last_date": "2019-02-22", "rows": 300, "skipped": None}},
    }
    data = stage_folder(config.run_folder, "preprocess")
    data.mkdir(parents=True)
    (data / REPORT_FILE).write_text(json.dumps(report))
    scores = {
        "rel_crps": {"grpo_1st": 0.9876},
        "skill": {"grpo_1st": 0.21},
        "coverage_80": {"grpo_1st": 0.811},
        "valid": {"grpo_1st": 0.993},
    }
    table = stage_folder(config.run_folder, "compare") / "leaderboard.md"

    def compare(_):
        table.write_text("table")
        return {"verdict": "grpo_1st beats the random walk", **scores}

    parts = {"sections": {}, "outputs": {"table": table}}
    run_stage("compare", config.run_folder, seed=0, inputs={"grpo_lora_1st": adapter}, body=compare, **parts)
    (config.run_dir or Path()).joinpath("config.yaml").write_text(to_yaml(config))


def call(hub_address: str, home: Path, *arguments: object, token: str | None = TOKEN) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub_address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": token} if token else {}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def error_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


def test_push_and_forecast_with_what_comes_back(hub, finished, tmp_path):
    pushed = call(hub.address, tmp_path, "-m", "grpo.hub", "push", finished.run_dir)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.split() == [f"{hub.address}/me/demo-grpo-1st"]
    repository = hub.repositories["me/demo-grpo-1st"]
    adapter = paths_of(finished).adapters["grpo_lora_1st"]
    assert repository.private
    assert repository.files[WEIGHTS] == (adapter / WEIGHTS).read_bytes()
    assert len(repository.commits) == 1
    for name, content in repository.files.items():
        assert str(finished.run_dir).encode() not in content, name

    csv = tmp_path / "AAPL.csv"
    simulated_bars().rename(columns=str.title).to_csv(csv, index_label="Date", date_format="%Y-%m-%d")
    flags = ("-m", "grpo.predict", "--csv", csv, "--num-samples", 25, "--output_dir")
    done = call(hub.address, tmp_path, *flags, tmp_path, "--adapter", f"me/demo-grpo-1st@{repository.sha}")
    assert done.returncode == 0, done.stderr
    local = forecast_csv(load_forecaster(adapter), csv, num_samples=25)
    assert json.loads((tmp_path / "AAPL.json").read_text())["samples"] == local.samples.tolist()
    [copy] = tmp_path.glob(f"hub/models--me--demo-grpo-1st/snapshots/*/{WEIGHTS}")
    assert copy.read_bytes() == (adapter / WEIGHTS).read_bytes()

    again = call(hub.address, tmp_path, "-m", "grpo.hub", "push", finished.run_dir, "--private", "true")
    assert again.returncode == 0, again.stderr
    assert len([path for method, path in hub.requests if method == "PUT"]) == 1, "the weights are sent once"


def card_of(config: RunConfig, **changes) -> tuple[dict, str]:
    from grpo.models.adapters import read_record

    adapter = paths_of(config).adapters["grpo_lora_1st"]
    record = dataclasses.replace(read_record(adapter), **changes)
    card = model_card(
        stage_of("stage1"),
        adapter,
        record,
        run=config.run_folder,
        repo_id="me/demo-grpo-1st",
        license_name=config.hub.license,
    )
    _, header, body = card.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_card_says_what_the_manifests_say(finished):
    header, body = card_of(finished)
    assert header["license"] == "mit"
    assert header["library_name"] == "peft"
    assert "base_model" not in header, "the embedded model is not on the Hub"
    first, last = str(TRAIN.context.origin[0])[:10], str(TRAIN.truth.dates[-1, -1])[:10]
    for part in (
        "CRPS relative to the random walk's | 0.9876 |",
        "| 0.210 |",
        "80 % interval | 0.811 |",
        "share of valid answers (any other counts as no change) | 0.993 |",
        "verdict: grpo_1st beats the random walk",
        f"Trained on {len(TRAIN)} windows",
        f"origins from {first}, prices up to {last}",
        "Validation begins on 2019-05-06, test on 2019-07-08",
        "2018-01-01 to 2019-02-22, 300 days",
        'load_forecaster("me/demo-grpo-1st")',
        "published under mit",
        "no investment advice",
        "last_reward: -0.5",
    ):
        assert part in re.sub(" +", " ", body), part
    assert str(finished.run_dir) not in body


def test_the_card_names_the_base_on_the_hub_and_no_score_of_other_weights(finished, tmp_path):
    header, body = card_of(finished, base_model="Qwen/Qwen2.5-7B-Instruct")
    assert header["base_model"] == "Qwen/Qwen2.5-7B-Instruct"
    assert "(https://huggingface.co/Qwen/Qwen2.5-7B-Instruct)" in body
    manifest = stage_folder(finished.run_folder, "compare") / "manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace(sha256(paths_of(finished).adapters["grpo_lora_1st"]), "0" * 64))
        _, body = card_of(finished)
    finally:
        manifest.write_text(text)
    assert "0.9876" not in body
    assert "has not been compared with the random walk yet" in body


def test_a_local_base_is_pushed_under_its_hub_id_alone(hub, tmp_path):
    tiny = save_tiny_model("qwen2", tmp_path / "tiny-base")
    config = RunConfig(model=str(tiny), run_dir=tmp_path / "run", hub=HubConfig(repo_id="me/tiny"))
    make_run(config)
    push = ("-m", "grpo.hub", "push", config.run_dir)
    refused = error_line(call(hub.address, tmp_path, *push))
    assert "is a local folder, which others cannot load" in refused
    assert "--hub.base_model_id" in refused
    assert hub.repositories == {}
    done = call(hub.address, tmp_path, *push, "--base-model-id", "me/tiny-base")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["me/tiny-grpo-1st"].files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/tiny-base"
    assert json.loads(files[RECORD_FILE])["base_model"] == "me/tiny-base"
    assert b"base_model: me/tiny-base" in files["README.md"]
    for name, content in files.items():
        assert str(tmp_path).encode() not in content, name


# The client waits between its own attempts at an upload, half a minute in all.
NO_WAITING = """
from huggingface_hub.utils import _http
_http.time = type("Time", (), {"sleep": staticmethod(lambda seconds: None)})
"""
PUSH = """
import sys
from grpo.hub import main
from grpo.runs.log import stage_entry
sys.exit(stage_entry(main))
"""


@pytest.mark.parametrize(
    ("fail", "token", "message"),
    [
        ({}, "hf_wrong", "the Hub answers 401: log in with `hf auth login`"),
        ({}, None, "no token to push to me/demo with; run `hf auth login`, or set HF_TOKEN"),
        ({"create": 403}, TOKEN, "the Hub answers 403: the token has no right to write"),
        (
            {"upload": 500},
            TOKEN,
            "the Hub answers 500: upload is out of order. Push again with: python -m grpo.hub push",
        ),
        (
            {"commit": 500},
            TOKEN,
            "the Hub answers 500: commit is out of order. Push again with: python -m grpo.hub push",
        ),
    ],
)
def test_a_push_that_fails_says_why_and_leaves_nothing(hub, finished, tmp_path, fail, token, message):
    hub.fail = fail
    error = error_line(call(hub.address, tmp_path, "-c", NO_WAITING + PUSH, "push", finished.run_dir, token=token))
    assert message in error
    assert all(not repository.files for repository in hub.repositories.values())


def test_a_push_without_a_network_says_so(hub, finished, tmp_path):
    hub.close()
    error = error_line(call(hub.address, tmp_path, "-m", "grpo.hub", "push", finished.run_dir))
    assert "pushing grpo_lora_1st to me/demo-grpo-1st failed: " in error
    assert "check the network" in error


def test_a_public_repository_is_not_pushed_to_in_private(hub, finished, tmp_path):
    hub.repositories["me/demo-grpo-1st"] = Repository(private=False)
    push = ("-m", "grpo.hub", "push", finished.run_dir)
    assert "is public on the Hub" in error_line(call(hub.address, tmp_path, *push))
    assert call(hub.address, tmp_path, *push, "--private", "false").returncode == 0
    assert WEIGHTS in hub.repositories["me/demo-grpo-1st"].files


AFTER_STAGE = """
import sys
from pathlib import Path
from grpo.config import parse_run_config
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import resolve_paths
from grpo.runs.resume import run_stage
from grpo.stages.training_settings import upload
config = parse_run_config(["--config", sys.argv[1]], prog="x", description="")
run_stage("stage1", config.run_folder, seed=0, sections={"model": config.model}, inputs={},
          outputs={"adapter": config.run_dir / "stage1_grpo_training" / "adapter"}, body=None)
paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
push_after_stage(upload(config, paths), "grpo_lora_1st")
print("the run goes on")
"""


@pytest.mark.parametrize("step", ["upload", "commit"])
def test_a_failed_push_does_not_stop_the_run_and_says_how_to_repeat_it(hub, finished, tmp_path, step):
    hub.fail = {step: 500}
    run = call(hub.address, tmp_path, "-c", NO_WAITING + AFTER_STAGE, finished.run_dir / "config.yaml")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "the run goes on\n"
    [warning] = [line for line in run.stderr.splitlines() if line.startswith("warning: pushing")]
    repeat = re.search(r"push again with: python (-m grpo\.hub push .*)", warning)
    assert repeat is not None
    hub.fail = {}
    assert call(hub.address, tmp_path, *repeat[1].split()).returncode == 0
    assert WEIGHTS in hub.repositories["me/demo-grpo-1st"].files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me/nothing", "the Hub answers 404: there is no such repository"),
        ("me/demo-grpo-1st@v9", "the Hub answers 404: there is no such repository or revision"),
        ("a/b/c", "there is no such folder (a Hub id looks like"),
    ],
)
def test_what_is_not_on_the_hub_is_said_so(hub, tmp_path, name, message):
    hub.repositories["me/demo-grpo-1st"] = Repository(private=False, commits=[{"adapter_config.json": b"{}"}])
    (tmp_path / "A.csv").write_text("")
    error = error_line(
        call(hub.address, tmp_path, "-m", "grpo.predict", "--csv", tmp_path / "A.csv", "--adapter", name)
    )
    assert message in error


@pytest.mark.parametrize("stage", ADAPTER_STAGES, ids=lambda stage: stage.key)
def test_each_training_stage_pushes_its_own_adapter_when_it_is_done(stage, monkeypatch):
    module = importlib.import_module(stage.module)
    calls: list[tuple] = []
    monkeypatch.setattr(module, "run_stage", lambda key, run, **arguments: calls.append((key,)))
    monkeypatch.setattr(module, "push_after_stage", lambda upload, *names: calls.append((upload.hub.repo_id, *names)))
    monkeypatch.setattr(sys, "argv", [stage.key, "--hub.repo_id", "me/demo"])
    module.main()
    assert calls == [(stage.key,), ("me/demo", stage.adapter)]


def test_a_stage_takes_an_adapter_from_the_hub(hub, tmp_path):
    hub.repositories["me/demo-sft"] = Repository(private=True, commits=[{"adapter_config.json": b"{1}"}])
    script = """
import sys
from pathlib import Path
from grpo.config import parse_run_config
from grpo.runs.folder import fetch_adapters, resolve_paths
from grpo.runs.log import stage_entry
def main():
    paths = resolve_paths(parse_run_config(sys.argv[1:], prog="x", description="").paths, Path(), "x")
    assert str(paths.adapters["sft_lora"]).startswith("me/")  # nothing is fetched before it is asked for
    print(fetch_adapters(paths, "sft_lora").adapters["sft_lora"])
raise SystemExit(stage_entry(main))
"""
    done = call(hub.address, tmp_path, "-c", script, "--sft-saved-lora", "me/demo-sft")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path)
    assert (folder / "adapter_config.json").read_bytes() == b"{1}"
    assert "me/other is no folder here" in error_line(
        call(hub.address, tmp_path, "-c", script, "--sft-saved-lora", "me/other")
    )


def test_a_run_without_a_finished_stage_or_a_repository(tmp_path, monkeypatch):
    config = RunConfig(run_dir=tmp_path, hub=HubConfig(repo_id="me/demo"))
    with pytest.raises(HubError, match="has no finished adapter"):
        push_run(upload(config, paths_of(config)))
    with pytest.raises(HubError, match=r"give --hub\.repo_id user/name"):
        require_pushable(HubConfig(), EMBEDDED)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for model in (EMBEDDED, "Qwen/Qwen2.5-7B-Instruct"):
        assert require_pushable(config.hub, model) == model


def test_without_a_network_a_hub_name_says_both_ways_out():
    with pytest.raises(HubError, match="me/nowhere is no folder here, and cannot be fetched"):
        locate_adapter("me/nowhere")


@pytest.mark.parametrize("value", ["demo", "me/demo/x", "me/de mo", "/demo"])
def test_a_repository_name_is_checked_before_any_training(value):
    with pytest.raises(ValueError, match=r"hub\.repo_id must look like user/name"):
        HubConfig(repo_id=value)
