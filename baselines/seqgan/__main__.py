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

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.seqgan.standalone.train_and_sample import SampleConfig, SeqGanError, TrainConfig, TrainedGenerator, train
from preprocessing.command_line import parse_config
from preprocessing.sequence_files import SequenceFileError, write_sequences

SWITCHES = ("show_config", "skip_gen_pretrain", "skip_dis_pretrain", "skip_adversarial")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    command, *arguments = (sys.argv[1:] if argv is None else [*argv]) or ["--help"]
    prog = f"python -m baselines.seqgan {command}"
    try:
        if command == "train":
            about = "Train on a file of sequences: by likelihood, then the discriminator, then adversarially."
            return run_train(parse_config(TrainConfig, _switched_on(arguments), prog=prog, description=about))
        if command == "sample":
            about = "Draw sequences from a generator that `train` wrote."
            return run_sample(parse_config(SampleConfig, arguments, prog=prog, description=about))
    except (SequenceFileError, SeqGanError, SavedFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    print(f"{prog}: error: '{command}' is no command; take train or sample (see --help)", file=sys.stderr)
    return 2


def run_train(config: TrainConfig) -> int:
    """Train, or show the settings, or say that all is done."""
    if config.show_config:
        print(config.as_json(), end="")
        return 0
    trained = train(config)
    print(f"{config.output_dir}: {'trained and written' if trained else 'this training is there and finished'}")
    return 0


def run_sample(config: SampleConfig) -> int:
    """Draw and write."""
    generator = TrainedGenerator.load(config.generator)
    samples = generator.sample(config.num_samples, seed=config.seed, temperature=config.temperature)
    write_sequences(config.output, samples)
    print(f"{config.output}: {len(samples)} sequences of {generator.num_steps} values")
    return 0


def _switched_on(arguments: Sequence[str]) -> list[str]:
    """A lone switch means true."""
    return [
        f"{one}=true" if one.lstrip("-").replace("-", "_") in SWITCHES and after not in ("true", "false") else one
        for one, after in pairwise([*arguments, ""])
    ]


if __name__ == "__main__":
    sys.exit(main())
