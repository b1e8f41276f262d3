"""Probes of a base model from a folder, through the real command."""

from __future__ import annotations

import pandas as pd
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.sampling.test_probes import character_tokenizer
from tests.tiny_runs import TinyRun


def test_a_blank_model_from_a_folder_is_probed_and_acquitted(tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}\n"
    tokenizer.eos_token = "~"
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "blank")
    tokenizer.save_pretrained(tmp_path / "blank")
    run = TinyRun(tmp_path)
    flags = ("--model", tmp_path / "blank", "--forecasters", "base", "--max-seq-length", 2000, "--probes", "true")
    flags += ("--prompt.max_completion_length", 4, "--stock", "sim:ou?rows=400,sim:gbm?rows=400")
    assert run.stage("compare", *flags) == 0
    table = pd.read_csv(run.place("compare") / "probes.csv")
    assert table["probe"].tolist() == ["exact next close, train", "exact next close, test", "name of the stock"]
    assert (table["p_value"].dropna() > 0.01).all()
    assert table["found"].iloc[:2].tolist() == [0, 0]
    report = (run.place("compare") / "leaderboard.md").read_text()
    assert "100% of the answers of base are invalid" in report
    assert "knows more than it is shown" not in report
