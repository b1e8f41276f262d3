from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from grpo.config import RunConfig, parse_run_config, to_yaml
from grpo.models.config import LoraSettings
from grpo.runs.config import PathsConfig
from grpo.runs.stages import ADAPTER_STAGES
from grpo.training.config import GrpoConfig

ROOT = Path(__file__).parents[1]
RUN_CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ACCELERATE_CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))


def parse(*arguments: str) -> RunConfig:
    return parse_run_config(list(arguments), prog="test", description="")


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        parse(*arguments)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_default_yaml_is_the_default():
    assert parse("--config", str(ROOT / "configs" / "default.yaml")) == RunConfig() == parse()


@pytest.mark.parametrize("file", RUN_CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_config_loads_and_says_what_it_changes(file: Path):
    config = parse("--config", str(file))
    settings = yaml.safe_load(file.read_text())
    assert config.model == settings["model"]
    assert config.lora.rank == settings["lora"]["rank"]
    assert config.prompt.style == settings["prompt"]["style"]


@pytest.mark.parametrize("name", ["qwen2.5-7b", "llama-3.2-1b"])
def test_the_stage_3_of_a_shipped_config_is_a_shorter_gentler_stage_1(name: str):
    config = parse("--config", str(ROOT / "configs" / f"{name}.yaml"))
    assert config.stage3.learning_rate < config.stage1.learning_rate
    assert config.stage3.beta > 0 == config.stage1.beta
    assert config.stage3.steps < config.stage1.steps
    one = config.stage1
    assert dataclasses.replace(config.stage3, learning_rate=one.learning_rate, steps=one.steps, beta=0.0) == one
    assert 1e-5 <= config.stage3.learning_rate <= config.stage1.learning_rate <= 5e-5


@pytest.mark.parametrize("file", RUN_CONFIGS, ids=lambda file: file.stem)
def test_trl_knows_every_field_that_a_shipped_config_passes_through(file: Path):
    trl = pytest.importorskip("trl")
    config = parse("--config", str(file))
    for stage, known in (
        (config.stage1, trl.GRPOConfig),
        (config.stage2, trl.SFTConfig),
        (config.stage3, trl.GRPOConfig),
    ):
        assert set(stage.trl) <= {field.name for field in dataclasses.fields(known)}


@pytest.mark.parametrize("file", ACCELERATE_CONFIGS, ids=lambda file: file.stem)
def test_accelerate_reads_every_shipped_file(file: Path):
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    config = config_args.load_config_from_file(str(file))
    assert config.num_processes >= 1
    expected = {"cpu": "NO", "single_gpu": "NO", "ddp": "MULTI_GPU", "multi_node": "MULTI_GPU", "fsdp2": "FSDP"}
    assert config.distributed_type.value == expected.get(file.stem, "DEEPSPEED")
    assert config.use_cpu == (file.stem == "cpu")


def test_a_config_read_back_from_yaml_is_equal(tmp_path: Path):
    config = RunConfig(
        stock="sim:ou?half_life=5",
        seed=3,
        run_dir=Path("results/été"),
        lora=LoraSettings(rank=4, target_modules=["q_proj", "v_proj"]),
        stage1=GrpoConfig(learning_rate=1e-5, rewards={"crps": 0.5, "format": 0.1}, trl={"bf16": True, "top_k": 3}),
        paths=PathsConfig(train_x=Path("a b.csv")),
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert parse("--config", str(file)) == config


def test_flags_override_the_file(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_text("lora: {rank: 4, alpha: 8}\nseed: 5\n")
    config = parse("--config", str(file), "--lora-rank", "6")
    assert (config.lora.rank, config.lora.alpha, config.seed) == (6, 8, 5)


@pytest.mark.parametrize(
    "flag, value, place",
    [
        ("--lora-rank", "32", ("lora", "rank")),
        ("--lora_rank", "32", ("lora", "rank")),
        ("--lora.rank", "32", ("lora", "rank")),
        ("--max-seq-length", "2048", ("prompt", "max_seq_length")),
        ("--gpu-memory-utilization", "0.25", ("generation", "gpu_memory_utilization")),
        ("--data-dir", "D", ("data", "data_dir")),
        ("--train-x-path", "x.csv", ("paths", "train_x")),
        ("--sft-saved-lora", "a", ("paths", "sft_lora")),
    ],
)
def test_the_short_flags_set_their_fields(flag: str, value: str, place: tuple[str, str]):
    section, name = place
    for arguments in ([flag, value], [f"{flag}={value}"]):
        assert str(getattr(getattr(parse(*arguments), section), name)) == value


def test_an_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]):
    assert "--lorra" in error_line(capsys, "--lorra", "3")


def test_an_abbreviated_flag_is_unknown(capsys: pytest.CaptureFixture[str]):
    assert "--see" in error_line(capsys, "--see", "3")


@pytest.mark.parametrize(
    "text, path", [("lora: {rnk: 3}", "lora rnk"), ("sead: 3", "sead"), ("stage3: {x: 1}", "stage3 x")]
)
def test_an_unknown_key_is_named_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, path: str
):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    line = error_line(capsys, "--config", str(file))
    assert all(f"'{part}'" in line for part in path.split())


@pytest.mark.parametrize(
    "arguments, path",
    [
        (["--lora-rank", "four"], "lora.rank"),
        (["--stage1.learning-rate", "fast"], "stage1.learning_rate"),
        (["--prompt.template", "{horizon} {rsy}"], "prompt.template names {rsy}"),
        (["--stage1.trl", "{chat_template_kwargs: {x: 1}}"], "give prompt.chat_template_kwargs"),
        (["--stage2.trl", "{assistant_only_loss: true}"], "the loss is on the answer alone already"),
        (["--lora-rank", "0"], "lora.rank"),
        (["--rejection.keep", "99"], "rejection.keep"),
        (["--generation.structured", "regex"], "generation.structured regex needs generation.backend vllm"),
        (["--generation.gpu-memory-utilization", "1.5"], "generation.gpu_memory_utilization"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(capsys: pytest.CaptureFixture[str], arguments: list[str], path: str):
    assert path in error_line(capsys, *arguments)


def test_a_wrong_type_in_yaml_is_named_with_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "c.yaml"
    file.write_text("stage2: {epochs: [1]}")
    assert "stage2.epochs" in error_line(capsys, "--config", str(file))


def test_a_missing_config_file_is_named(capsys: pytest.CaptureFixture[str]):
    assert "no_such.yaml" in error_line(capsys, "--config", "no_such.yaml")


def test_config_and_runs_import_no_torch():
    check = "import sys, grpo.runs.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, timeout=60).returncode == 0


def test_the_learning_rate_suits_the_size_of_the_model_unless_it_is_given():
    small, large = RunConfig(), RunConfig(model="Qwen/Qwen2.5-7B-Instruct")
    assert [small.learning_rate(stage.key) for stage in ADAPTER_STAGES] == [1e-3, 3e-4, 5e-4]
    assert [large.learning_rate(stage.key) for stage in ADAPTER_STAGES] == [2e-5, 5e-5, 1e-5]
    assert dataclasses.replace(large, stage3=GrpoConfig(learning_rate=3e-6)).learning_rate("stage3") == 3e-6


@pytest.mark.parametrize("value", ["llm, fhs,random_walk,fhs", "[llm, fhs, random_walk]"])
def test_forecasters_are_a_list_or_names_with_commas(value: str):
    config = parse("--forecasters", value)
    assert config.compare.names == ("llm", "fhs", "random_walk")


def test_the_short_flags_of_the_comparison():
    config = parse(
        *("--data", "D", "--num-samples", "9", "--max-windows", "8", "--folds", "3", "--seeds", "2"),
        *("--placebo", "gbm", "--base-cutoff", "2024-06-01", "--probes", "true"),
    )
    assert config.data.data_dir == Path("D")
    compare = config.compare
    assert (compare.num_samples, compare.max_windows, compare.folds, compare.seeds) == (9, 8, 3, 2)
    assert (compare.placebo, compare.base_cutoff, compare.probes) == ("gbm", "2024-06-01", True)


def test_settings_of_a_plugin_from_flags_and_file_are_equal(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_text("baselines: {garch_t: {decay: 0.9}, fhs: {}}")
    config = parse("--config", str(file))
    assert config.baselines == {"garch_t": {"decay": 0.9}, "fhs": {}}
    assert parse("--baselines", "{garch_t: {decay: 0.9}, fhs: {}}") == config
    assert parse("--baselines.garch_t", "{decay: 0.9}").baselines == {"garch_t": {"decay": 0.9}}


def test_scattered_settings_of_a_plugin_are_refused(capsys: pytest.CaptureFixture[str]):
    assert parse("--baselines.fhs.a", "1", "--baselines.ridge.b", "2").baselines == {"fhs": {"a": 1}, "ridge": {"b": 2}}
    line = error_line(capsys, "--baselines.fhs.a", "1", "--baselines.fhs.b=2")
    assert "baselines.fhs: give its settings together: --baselines.fhs '{FIELD: VALUE, ...}'" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-cutoff", "June"], "compare.base_cutoff must be a day as YYYY-MM-DD; got June"),
        (["--folds", "0"], "compare.folds must be at least 1"),
        (["--seeds", "0"], "compare.seeds must be at least 1"),
        (["--placebo", "sugar"], "compare.placebo"),
        (["--forecasters", ","], "compare.forecasters must name at least one"),
    ],
)
def test_wrong_settings_of_the_comparison(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert message in error_line(capsys, *arguments)


def test_a_stage_sees_the_gpus_that_its_flag_names(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    parse_run_config([], prog="p", description="d")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    parse_run_config(["--cuda-devices", "0,1"], prog="p", description="d")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    with pytest.raises(SystemExit):
        parse_run_config(["--cuda-devices", "0;1"], prog="p", description="d")
