"""What Unsloth is asked for, and when it is refused; with Unsloth installed (tests/run_unsloth.sh) also its signatures.

The stages themselves run with it in tests/stages/test_llm_stages.py.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from grpo.config import RunConfig, parse_run_config
from grpo.language.config import PromptConfig
from grpo.models import unsloth as unsloth_backend
from grpo.models.config import LoadingConfig, LoraSettings
from grpo.models.spec import ModelSpec
from grpo.models.unsloth import activate, load_model, require_reference, unsloth_problems
from grpo.runs.stages import stage_of
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import GenerateForecaster
from grpo.stages.training_settings import training_task
from grpo.training.preflight import PreflightError, check_training
from preprocessing.errors import UserError
from tests.tiny_adapters import publish_random_adapter
from tests.tiny_models import tiny_model
from tests.tiny_runs import NEEDS_UNSLOTH

ROOT = Path(__file__).parents[2]
SPEC = ModelSpec(backend="unsloth")
UNSLOTH = importlib.util.find_spec("unsloth")  # before a stand-in takes its name


@pytest.fixture
def machine(monkeypatch):
    """Sets what is there: the package, and a GPU."""

    def have(package: bool, gpu: bool) -> None:
        finder = SimpleNamespace(find_spec=lambda name: object() if package and name == "unsloth" else None)
        monkeypatch.setattr(unsloth_backend.importlib, "util", finder)
        monkeypatch.setattr(unsloth_backend, "cuda_devices", lambda: ["H200"] if gpu else [])

    return have


def test_without_package_or_gpu_it_says_so_and_imports_nothing(machine):
    machine(False, True)
    with pytest.raises(UserError, match=r"^backend unsloth: Unsloth is not installed; .*'grpo-forecast\[unsloth\]'"):
        activate(SPEC, sampler="transformers")
    machine(True, False)
    with pytest.raises(UserError, match=r"^backend unsloth: PyTorch sees no GPU.*take backend transformers$"):
        activate(SPEC, sampler="transformers")
    machine(False, False)
    with pytest.raises(UserError) as refused:
        activate(SPEC, sampler="transformers")
    assert "not installed" in str(refused.value)
    assert "no GPU" in str(refused.value)
    assert "\n" not in str(refused.value)
    activate(ModelSpec(), sampler="vllm")
    assert "unsloth" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sampler": "vllm"}, "generation.backend vllm has no place in it; take "
         "generation.backend transformers"),
        ({"loading": LoadingConfig(attention="sdpa")}, "loading.attention sdpa has no place in it; take "
         "loading.attention auto"),
        ({"loading": LoadingConfig(liger=True)}, "loading.liger true has no place in it; take loading.liger false"),
    ],
)  # fmt: skip
def test_settings_that_unsloth_has_no_place_for_are_refused(machine, changes, part):
    machine(True, True)
    assert unsloth_problems(SPEC, sampler="transformers") == []
    sampler = changes.pop("sampler", "transformers")
    [problem] = unsloth_problems(replace(SPEC, **changes), sampler=sampler)
    assert part in problem


def test_weights_that_the_launcher_shares_out_are_refused(machine, monkeypatch):
    machine(True, True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    [problem] = unsloth_problems(SPEC, sampler="transformers")
    assert "take ddp" in problem


def test_the_preflight_names_it_among_all_problems(machine):
    machine(False, True)
    task = training_task(RunConfig(backend="unsloth"), stage_of("stage1"))
    with pytest.raises(PreflightError, match="Unsloth is not installed"):
        check_training(task, Path(), prompt_ids=[[1] * 300] * 64, completion_length=14, processes=1)


def test_the_flag_is_known_on_every_stage():
    assert parse_run_config(["--backend", "unsloth"], prog="x", description="").backend == "unsloth"


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [("stage1_train_grpo", ""), ("stage2_train_sft", ", None"), ("stage3_train_grpo_from_sft", "")],
)
def test_the_stages_import_unsloth_before_what_it_replaces(stage, arguments, tmp_path):
    (tmp_path / "unsloth.py").write_text(
        "import sys\nprint('before:', [name for name in ('trl', 'transformers', 'peft') if name in sys.modules])\n"
        "raise SystemExit(3)\n"
    )
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from grpo.models import unsloth as unsloth_backend
from grpo.config import RunConfig
from grpo.runs.folder import resolve_paths
from grpo.stages.{stage} import train
unsloth_backend.cuda_devices = lambda: ["H200"]
config = RunConfig(backend="unsloth")
train(config, None, resolve_paths(config.paths, config.run_folder, config.stock_slug){arguments})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "before: []\n"), done.stderr


class Calls(ModuleType):
    """A stand-in that writes down how it is called, and what the adapter folder held."""

    def __init__(self) -> None:
        super().__init__("unsloth")
        self.made: list[tuple[str, dict]] = []
        self.FastLanguageModel = self

    def from_pretrained(self, **arguments):
        settings = Path(arguments["model_name"]) / "adapter_config.json"
        if settings.is_file():
            arguments["base"] = json.loads(settings.read_text())["base_model_name_or_path"]
            arguments["files"] = {path.name for path in settings.parent.iterdir()}
        self.made.append(("from_pretrained", arguments))
        return "base", "tokenizer"

    def get_peft_model(self, model, **arguments):
        self.made.append(("get_peft_model", arguments))
        return f"{model} with adapter"


@pytest.fixture
def calls(monkeypatch) -> Calls:
    stand_in = Calls()
    monkeypatch.setitem(sys.modules, "unsloth", stand_in)
    return stand_in


def load_small(adapter: Path | None):
    spec = ModelSpec(adapter=adapter)
    return load_model(spec, LoraSettings(), dtype=torch.float32, max_seq_length=1024, seed=0)


def test_a_fresh_adapter_is_asked_for_as_the_config_says(calls):
    loading = LoadingConfig(quantization="4bit", gradient_checkpointing=True)
    spec = ModelSpec(base="Qwen/Qwen2.5-0.5B-Instruct", loading=loading)
    lora = LoraSettings(rank=8, alpha=24, dropout=0.1, target_modules=["q_proj"])
    assert load_model(spec, lora, dtype=torch.bfloat16, max_seq_length=640, seed=7) == "base with adapter"
    assert calls.made == [
        (
            "from_pretrained",
            {
                "model_name": "Qwen/Qwen2.5-0.5B-Instruct",
                "max_seq_length": 640,
                "dtype": torch.bfloat16,
                "load_in_4bit": True,
                "use_gradient_checkpointing": "unsloth",
                "use_exact_model_name": True,
                "trust_remote_code": False,
            },
        ),
        (
            "get_peft_model",
            {
                "r": 8,
                "target_modules": ["q_proj"],
                "lora_alpha": 24,
                "lora_dropout": 0.1,
                "use_gradient_checkpointing": "unsloth",
                "random_state": 7,
            },
        ),
    ]


def test_a_finished_adapter_is_continued_from_a_copy_that_names_its_base_where_it_lies(calls, tmp_path):
    adapter = publish_random_adapter(RunConfig(), tmp_path / "adapter")
    before = (adapter / "adapter_config.json").read_text()
    assert load_small(adapter) == "base"
    [(name, arguments)] = calls.made
    assert name == "from_pretrained"
    assert arguments["load_in_4bit"] is False
    assert arguments["use_gradient_checkpointing"] is False
    assert Path(arguments["base"], "model.safetensors").is_file()
    assert arguments["files"] == {path.name for path in adapter.iterdir()}
    assert (adapter / "adapter_config.json").read_text() == before
    assert json.loads(before)["base_model_name_or_path"] == "embedded"
    assert not Path(arguments["model_name"]).exists()


def test_a_lost_kl_reference_stops_the_stage():
    adapters = {"default": None, "ref": None}
    require_reference(SimpleNamespace(peft_config=adapters), beta=0.02)
    require_reference(SimpleNamespace(peft_config={"default": None}), beta=0.0)
    with pytest.raises(UserError, match=r"takes the base model as the KL reference.*--stage3\.beta 0"):
        require_reference(SimpleNamespace(peft_config={"default": None}), beta=0.02)


def test_generate_samples_the_models_own_law_and_leaves_the_global_stream_alone():
    model, tokenizer = tiny_model("qwen2")
    model.generation_config.update(do_sample=False, temperature=0.1, top_k=3, repetition_penalty=5.0)  # ignored
    forecaster = GenerateForecaster("x", model.eval(), tokenizer, PromptConfig(), GenerationConfig(rows_per_batch=1000))
    prompts = [list(range(50, 250)), list(range(100, 180))]  # of different lengths: padded on the left
    before = torch.random.get_rng_state()
    [sampled] = forecaster._sample(prompts, 500, 2, seed=3, horizon=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [sampled] == list(forecaster._sample(prompts, 500, 2, seed=3, horizon=1))
    assert [sampled] != list(forecaster._sample(prompts, 500, 2, seed=4, horizon=1))
    more = [batch for seed in range(10) for batch in forecaster._sample(prompts, 500, 2, seed=seed, horizon=1)]
    for number, prompt in enumerate(prompts):
        with torch.no_grad():
            log_probs = torch.log_softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1], -1)
        first = torch.tensor([row[0] for batch in more for row in batch[500 * number : 500 * (number + 1)]])
        # expectations under the law itself: of the log-probability (which a temperature or a cut would raise), and of
        # a token that the prompt holds (which a penalty would lower)
        for values in (log_probs, torch.isin(torch.arange(len(log_probs)), torch.tensor(prompt)).float()):
            mean = (log_probs.exp() * values).sum()
            sd = ((log_probs.exp() * values**2).sum() - mean**2).sqrt()
            assert (values[first].mean() - mean).abs() < 3.5 * sd / len(first) ** 0.5


@NEEDS_UNSLOTH
def test_unsloths_gpu_loaders_take_what_they_are_given(calls):
    """Read from its source, since importing the GPU part needs one."""
    assert UNSLOTH is not None
    assert UNSLOTH.origin is not None
    load_small(None)
    places = [("loader.py", "FastLanguageModel"), ("llama.py", "FastLlamaModel")]
    for (name, arguments), (file, owner) in zip(calls.made, places, strict=True):
        tree = ast.parse((Path(UNSLOTH.origin).parent / "models" / file).read_text())
        [home] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
        [function] = [node for node in home.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert set(arguments) <= {argument.arg for argument in function.args.args + function.args.kwonlyargs}
