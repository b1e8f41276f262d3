"""Demonstrations to fitted networks: tokens, teacher forcing, and imitation where it is asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.gail.config import GailConfig, PretrainedConfig
from baselines.gail.demonstrations import Demonstrations, TokenSequences
from baselines.gail.network import SequenceNetwork
from baselines.gail.pretraining import CHECKPOINT as PRETRAINING_CHECKPOINT
from baselines.gail.pretraining import pretrain
from baselines.gail.tokens import Tokenizer
from baselines.neural.checkpoints import fingerprint
from baselines.neural.learning_curves import LearningCurve
from preprocessing.files import JsonObject

if TYPE_CHECKING:
    from baselines.gail.imitation import Imitation


@dataclass(frozen=True, eq=False)
class FittedNetworks:
    """What fitting gives.

    Attributes:
        tokenizer: fitted on the training returns.
        pretrained: the token model after teacher forcing.
        imitation: what came after, or None where the config asks for teacher forcing alone.
        curve: what was measured.
        checkpoints: files that a fit of the same would go on from.
    """

    tokenizer: Tokenizer
    pretrained: SequenceNetwork
    imitation: Imitation | None
    curve: LearningCurve
    checkpoints: tuple[Path, ...]

    def discard_checkpoints(self) -> None:
        """Remove them, once the networks are safe."""
        # The last stage's first: a kill in between leaves what a fit leaves that has just finished teacher forcing.
        for checkpoint in reversed(self.checkpoints):
            checkpoint.unlink()

    @property
    def network(self) -> SequenceNetwork:
        """The policy to forecast with."""
        return self.pretrained if self.imitation is None else self.imitation.best


def fit_networks(
    config: PretrainedConfig, train: Demonstrations, val: Demonstrations, *, seed: int, folder: Path, title: str
) -> FittedNetworks:
    """Fit, going on where a fit of the same in this folder was cut short; write the learning curves there.

    Args:
        config: a GailConfig also imitates.
        train: to learn from.
        val: to choose weights by.
        seed: of all random choices.
        folder: of checkpoints and learning curves.
        title: of the learning curves.

    Raises:
        UserError: there are too few training returns for the tokens.
        SavedFileError: the folder holds a fit of something else that was cut short.
    """
    # Fitted on training returns alone; validation returns beyond them become the outermost tokens.
    tokenizer = Tokenizer.fit(train.returns.numpy(), config.num_tokens)
    sequences = TokenSequences.encode(train, tokenizer)
    looked_at = TokenSequences.encode(val, tokenizer)
    curve = LearningCurve()
    shared: JsonObject = {
        "seed": seed,
        "folder": folder,
        "identity": _identity(config, train, val, seed),
        "curve": curve,
    }
    pretrained = pretrain(config, tokenizer, sequences, looked_at, **shared)
    imitation = None
    checkpoints = [folder / PRETRAINING_CHECKPOINT]
    if isinstance(config, GailConfig):
        from baselines.gail.imitation import CHECKPOINT, imitate  # needs stable-baselines3

        imitation = imitate(config, tokenizer, pretrained, sequences, looked_at, **shared)
        checkpoints.append(folder / CHECKPOINT)
    curve.write(folder, title=title)
    return FittedNetworks(tokenizer, pretrained, imitation, curve, tuple(checkpoints))


def _identity(config: PretrainedConfig, train: Demonstrations, val: Demonstrations, seed: int) -> JsonObject:
    """What a fit depends on, as plain JSON."""
    data = fingerprint(*(tensor for part in (train, val) for tensor in (part.context, part.returns)))
    return {**dataclasses.asdict(config), "seed": seed, "data": data}
