"""`python -m baselines.seqgan`: the commands of its README, and one line for wrong input."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.checkpoints import read_tensors
from baselines.seqgan import __main__ as command
from baselines.seqgan.standalone.train_and_sample import SampleConfig, TrainConfig, TrainedGenerator, train
from preprocessing.command_line import UsageError
from preprocessing.sequence_files import read_sequences, write_sequences

ROOT = Path(__file__).parents[2]
README = (ROOT / "baselines" / "seqgan" / "README.md").read_text()
TINY = {
    "hidden": 4,
    "batch_size": 16,
    "pretraining_epochs": 2,
    "discriminator_pretraining_sets": 2,
    "discriminator_sets": 1,
    "discriminator_set_batches": 1,
    "discriminator_epochs": 1,
    "adversarial_batches": 2,
    "rollouts": 2,
    "num_samples": 50,
}
TINY_FLAGS = [f"--{name}={value}" for name, value in TINY.items()]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with save/real_data.txt: 60 sequences of 6 values near 50."""
    values = 50 + 3 * np.random.default_rng(0).standard_normal((60, 6))
    write_sequences(tmp_path / "save" / "real_data.txt", values)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


def native(words: list[str]) -> bool:
    return words[1:3] == ["-m", "baselines.seqgan"]


def test_the_commands_of_the_readme_run_one_after_the_other(folder, capsys):
    own = [words[3:] for words in commands() if native(words)]
    assert {words[0] for words in own} == {"train", "sample"}
    for words in own:
        tiny = TINY_FLAGS if words[0] == "train" else ["--num-samples=50"]
        assert command.main([*words, *tiny]) == 0, (words, capsys.readouterr().err)
    assert (folder / "cool.txt").exists()


@pytest.mark.parametrize("words", [words for words in commands() if not native(words)], ids=" ".join)
def test_the_other_commands_of_the_readme_are_understood(words):
    if words[1] == "-m":
        program, rest = ["-m", words[2]], words[3:]
    else:
        program, rest = [words[1]], words[2:]
    arguments = [sys.executable, *program, "--help"]
    explained = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout.replace("-", "_")
    for flag in (word for word in rest if word.startswith("--")):
        assert flag.replace("-", "_") in explained


def test_it_writes_what_it_says_in_the_units_of_the_data(folder, capsys):
    assert command.main(["train", "--real", "save/real_data.txt", *TINY_FLAGS]) == 0
    assert "save: trained and written" in capsys.readouterr().out
    for name in ("generator_sample.txt", "eval_file.txt", "final_samples.txt"):
        values = read_sequences(folder / "save" / name)
        assert values.shape == (50, 6)
        assert 45 < values.mean() < 55
        assert 2 < values.std() < 6
    assert json.loads((folder / "save" / "config.json").read_text())["hidden"] == 4
    tensors, header = read_tensors(folder / "save" / "generator.safetensors")
    assert header["num_steps"] == 6
    assert header["mean"] == pytest.approx(read_sequences(folder / "save" / "real_data.txt").mean())
    assert tensors["lstm.weight_hh_l0"].shape == (16, 4)
    assert (folder / "save" / "learning_curves.png").exists()
    assert command.main(["train", "--real", "save/real_data.txt", *TINY_FLAGS]) == 0
    assert "this training is there and finished" in capsys.readouterr().out


def test_each_stage_can_be_left_out_and_a_training_can_begin_with_another(folder):
    base = TrainConfig(real=Path("save/real_data.txt"), **TINY)
    mle = dataclasses.replace(base, skip_dis_pretrain=True, skip_adversarial=True, output_dir=Path("mle"))
    gan = dataclasses.replace(
        base, skip_gen_pretrain=True, start_from=Path("mle"), seed=5, output_dir=Path("gan"), adversarial_batches=1
    )
    nothing = dataclasses.replace(gan, skip_dis_pretrain=True, skip_adversarial=True, output_dir=Path("nothing"))
    phases = {}
    for config in (mle, gan, nothing):
        assert train(config)
        curve = config.output_dir / "learning_curves.csv"
        phases[str(config.output_dir)] = {
            row.split(",")[0] for row in (curve.read_text().splitlines()[1:] if curve.exists() else [])
        }
    assert phases == {"mle": {"pretraining"}, "gan": {"discriminator", "adversarial"}, "nothing": set()}

    def weights(name: str) -> torch.Tensor:
        return read_tensors(folder / name / "generator.safetensors")[0]["lstm.weight_hh_l0"]

    assert torch.equal(weights("nothing"), weights("mle"))
    assert not torch.equal(weights("gan"), weights("mle"))
    first = TrainedGenerator.load(Path("mle/generator.safetensors")).sample(50, seed=base.seed)
    np.testing.assert_array_equal(read_sequences(Path("gan/generator_sample.txt")).shape, first.shape)
    np.testing.assert_array_equal(read_sequences(Path("mle/generator_sample.txt")), first)


def test_show_config_shows_and_stops(folder, capsys):
    assert command.main(["train", "--real", "save/real_data.txt", "--show-config", "--skip-adversarial"]) == 0
    shown = json.loads(capsys.readouterr().out)
    # the schedule of the original
    assert shown["pretraining_epochs"] == 120
    assert shown["adversarial_batches"] == 200
    assert (shown["batch_size"], shown["seed"], shown["learning_rate"], shown["hidden"]) == (64, 88, 1e-3, 32)
    assert shown["skip_adversarial"] is True
    assert shown["skip_gen_pretrain"] is False
    assert not (folder / "save" / "generator.safetensors").exists()


def test_samples_at_a_temperature(folder):
    train(TrainConfig(real=Path("save/real_data.txt"), **TINY))
    command.main(["sample", "--output", "one.txt", "--num_samples", "400"])
    command.main(["sample", "--output", "cool.txt", "--num_samples", "400", "--temperature", "0.25"])
    one, cool = read_sequences(Path("one.txt")), read_sequences(Path("cool.txt"))
    np.testing.assert_allclose(cool[:, 0].std(), one[:, 0].std() / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="temperature must be positive"):
        SampleConfig(temperature=0)


def refused(arguments: list[str], capsys, code: int = 1) -> str:
    assert command.main(arguments) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_wrong_input_is_one_line(folder, capsys):
    train_on = ["train", *TINY_FLAGS, "--real"]
    Path("bad.txt").write_text("1 2 3\n1 x 3\n")
    assert "bad.txt, line 2, column 3: 'x' is no finite number" in refused([*train_on, "bad.txt"], capsys)
    Path("ragged.txt").write_text("1 2 3\n1 2\n")
    assert "ragged.txt, line 2, column 4" in refused([*train_on, "ragged.txt"], capsys)
    assert "missing.txt cannot be read" in refused([*train_on, "missing.txt"], capsys)
    Path("flat.txt").write_text("1 1\n1 1\n")
    assert "flat.txt needs two sequences" in refused([*train_on, "flat.txt"], capsys)
    good = [*train_on, "save/real_data.txt"]
    assert "device moon is not there; this machine has cpu" in refused([*good, "--device", "moon"], capsys)
    assert "none/generator.safetensors" in refused([*good, "--start-from", "none"], capsys)
    assert "generator.safetensors cannot be read" in refused(["sample"], capsys)
    assert "'tell' is no command; take train, sample" in refused(["tell"], capsys, code=2)
    assert command.main(good) == 0
    assert "of a training with other seed (88, not 3), first weights; restore that" in refused(
        [*good, "--seed", "3"], capsys
    )
    Path("long.txt").write_text("1 2 3\n1 2 4\n")
    other = [*train_on, "long.txt", "--start-from", "save", "--output-dir", "other"]
    assert "save was trained on sequences of 6 values; those of long.txt have 3" in refused(other, capsys)


def test_a_wrong_flag_or_value_is_a_usage_error(folder, capsys):
    for wrong in (["--hiden", "3"], ["--rollouts", "0"], ["--batch-size", "1"], ["--seed", "x"]):
        with pytest.raises(UsageError):
            command.main(["train", "--real", "save/real_data.txt", *wrong])
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UsageError):
        command.main(["train"])


def test_a_discriminator_is_no_generator(folder):
    train(TrainConfig(real=Path("save/real_data.txt"), **TINY))
    with pytest.raises(SavedFileError, match=r"holds no generator \(it is a discriminator\)"):
        TrainedGenerator.load(Path("save/discriminator.safetensors"))


def test_help_is_there(capsys):
    assert command.main([]) == 0
    assert "real_data.txt" in capsys.readouterr().out
