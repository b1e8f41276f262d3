"""SeqGAN on a text file of sequences: one a line, space-separated numbers, all lines equally long, no header.

    python -m baselines.seqgan train --real save/real_data.txt
    python -m baselines.seqgan train --real save/real_data.txt --skip-adversarial --output-dir mle
    python -m baselines.seqgan train --real save/real_data.txt --start-from mle --skip-gen-pretrain --output-dir gan
    python -m baselines.seqgan sample --generator save/generator.safetensors --temperature 0.8 --output cool.txt

`train` writes into --output-dir (save): generator.safetensors and discriminator.safetensors (weights, and sizes and
units as JSON in their headers), config.json (the settings), generator_sample.txt (sequences of the pre-trained
generator), eval_file.txt (those of the last measurement of the adversarial stage), final_samples.txt (those of the
finished generator), learning_curves.csv and .png. A training that was killed goes on when it is called again.
Each command explains its settings with --help.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

from baselines.building_blocks.commands import run_command
from baselines.seqgan.standalone.train_and_sample import SampleConfig, TrainConfig, TrainedGenerator, train
from preprocessing.command_line import parse_config
from preprocessing.sequence_files import write_sequences

SWITCHES = ("show_config", "skip_gen_pretrain", "skip_dis_pretrain", "skip_adversarial")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    return run_command("python -m baselines.seqgan", str(__doc__), {"train": run_train, "sample": run_sample}, argv)


def run_train(flags: Sequence[str], program: str) -> None:
    """Train, or show the settings, or say that all is done."""
    about = "Train on a file of sequences: by likelihood, then the discriminator, then adversarially."
    config = parse_config(TrainConfig, _switched_on(flags), prog=program, description=about)
    if config.show_config:
        print(config.as_json(), end="")
        return
    trained = train(config)
    print(f"{config.output_dir}: {'trained and written' if trained else 'this training is there and finished'}")


def run_sample(flags: Sequence[str], program: str) -> None:
    """Draw and write."""
    about = "Draw sequences from a generator that `train` wrote."
    config = parse_config(SampleConfig, flags, prog=program, description=about)
    generator = TrainedGenerator.load(config.generator)
    samples = generator.sample(config.num_samples, seed=config.seed, temperature=config.temperature)
    write_sequences(config.output, samples)
    print(f"{config.output}: {len(samples)} sequences of {generator.num_steps} values")


def _switched_on(arguments: Sequence[str]) -> list[str]:
    """A lone switch means true."""
    return [
        f"{one}=true" if one.lstrip("-").replace("-", "_") in SWITCHES and after not in ("true", "false") else one
        for one, after in pairwise([*arguments, ""])
    ]


if __name__ == "__main__":
    sys.exit(main())
