"""GAIL (Ho & Ermon 2016): RecurrentPPO against the discriminator, from the pre-trained policy.

A round: sample E whole paths with the policy, each token rewarded by the discriminator; train the discriminator on
these, on former fakes and on demonstrations; update the policy by PPO.

The divergence from the pre-trained policy pi_0 is part of the reward: each token costs kl_weight (log pi - log pi_0),
so that policy gradients are those of E[sum of rewards] - kl_weight KL(pi || pi_0) of whole paths.

Letters: E paths per round, T steps, C numbers of context, V tokens there are.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from baselines.gail.config import ADVERSARIAL, DISCRIMINATOR, VALIDATION, GailConfig
from baselines.gail.demonstrations import TokenSequences
from baselines.gail.discriminator import Replay, auc, f1, last_logits, update
from baselines.gail.environment import TensorVecEnv
from baselines.gail.network import SequenceNetwork, previous, sample_tokens
from baselines.gail.policy import EpisodeBuffer, TokenPolicy
from baselines.gail.pretraining import network_sizes, new_network, validation_losses
from baselines.gail.tokens import Tokenizer
from baselines.neural.learning_curves import LearningCurve
from baselines.neural.seeds import global_generators_kept, number, seed_globals, torch_generator
from baselines.neural.training_run import Measured, Stage, TrainingRun, mean_of

CHECKPOINT = "adversarial.safetensors"
LOGGED = ("entropy_loss", "value_loss", "approx_kl", "clip_fraction", "explained_variance")
"""What RecurrentPPO measures and the curve keeps."""


@dataclass(frozen=True, eq=False)
class Imitation:
    """What a training gives.

    Attributes:
        best: the policy with the lowest validation loss; may be the pre-trained one.
        loss: that loss.
        last: the policy after the last round.
        discriminator: after the last round.
    """

    best: SequenceNetwork
    loss: float
    last: SequenceNetwork
    discriminator: SequenceNetwork


def new_discriminator(config: GailConfig, pretrained: SequenceNetwork, seed: int) -> SequenceNetwork:
    """A discriminator of the token model's tokens and contexts, undecided at first."""
    sizes = network_sizes(config, pretrained.head.out_features, pretrained.context_dim)
    sizes = dataclasses.replace(sizes, hidden_size=config.discriminator_size)
    return new_network(sizes, 1, number(seed, DISCRIMINATOR))


def log_probabilities(network: SequenceNetwork, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """[B, T] log-probability of each token [B, T] after those before it."""
    logits = network(previous(tokens, network.head.out_features), context)
    return logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]


def imitate(
    config: GailConfig,
    tokenizer: Tokenizer,
    pretrained: SequenceNetwork,
    train: TokenSequences,
    val: TokenSequences,
    *,
    seed: int,
    folder: Path,
    identity: Mapping[str, object],
    curve: LearningCurve,
) -> Imitation:
    """Train both sides.

    Args:
        config: both sides.
        tokenizer: what the tokens stand for.
        pretrained: where the policy starts, and what it is held to; not changed.
        train: demonstrations.
        val: to choose the weights by; the pre-trained ones take part.
        seed: of all random choices.
        folder: of the checkpoint; a training that was cut short there goes on.
        identity: what the training depends on besides the config, as plain JSON.
        curve: gets a row per round.
    """
    with global_generators_kept():
        # Seeded before the model is built: RecurrentPPO draws its first weights, and later all actions, from the global
        # generators.
        seed_globals(seed, ADVERSARIAL)
        rounds = AdversarialRounds(
            config, tokenizer, pretrained, train, val, seed=seed, path=folder / CHECKPOINT, identity=identity,
            curve=curve,
        )  # fmt: skip
        rounds.train()
        last = policy_of(rounds.ppo).to_network()
        best = copy.deepcopy(last)
        rounds.run.best.restore(best)
    return Imitation(best=best, loss=rounds.run.best.loss, last=last, discriminator=rounds.discriminator)


def new_model(
    config: GailConfig, env: TensorVecEnv, pretrained: SequenceNetwork, *, remaining: Callable[[], float]
) -> RecurrentPPO:
    """RecurrentPPO whose policy has the pre-trained weights; a rollout is one path per environment.

    Args:
        config: of the policy's updates.
        env: what it plays.
        pretrained: whose weights it takes.
        remaining: share of the rounds that is left after this one, by which the step size falls.
    """
    model = RecurrentPPO(
        TokenPolicy,
        env,
        # not by the library's own share, which is that of one call of `learn`, here a single round
        learning_rate=lambda _: config.learning_rate * remaining(),
        # One whole episode per environment and rollout: nothing is cut, and no state goes on from former weights.
        n_steps=env.horizon,
        batch_size=min(config.batch, env.num_envs) * env.horizon,
        n_epochs=config.epochs,
        # Every path has the same length, so nothing is gained by ending early or late, and no day counts less.
        gamma=1.0,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        # As the discriminator loses its grip the rewards become equal and the updates must die away; normalised, their
        # noise would be blown up to unit size.
        normalize_advantage=False,
        policy_kwargs={"sizes": network_sizes(config, env.num_tokens, env.contexts.shape[1])},
        device="cpu",
    )
    # In place of sb3-contrib's own buffer, which tears episodes and pads them.
    model.rollout_buffer = EpisodeBuffer(
        env.horizon,
        env.observation_space,  # type: ignore[arg-type]
        env.action_space,
        model.rollout_buffer.hidden_state_shape,  # type: ignore[attr-defined]
        model.device,
        gamma=model.gamma,
        gae_lambda=model.gae_lambda,
        n_envs=env.num_envs,
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    # Last, as the constructor has drawn weights of its own.
    policy_of(model).load_network(pretrained)
    return model


def policy_of(model: RecurrentPPO) -> TokenPolicy:
    """Its policy, by its own type."""
    assert isinstance(model.policy, TokenPolicy)
    return model.policy


class AdversarialRounds(BaseCallback):
    """A round is one call of RecurrentPPO's `learn`, into which this callback puts the discriminator's part.

    Attributes:
        ppo: the policy and its optimizer.
        discriminator: its opponent.
        run: how many rounds are done, and the best weights.
    """

    def __init__(
        self,
        config: GailConfig,
        tokenizer: Tokenizer,
        pretrained: SequenceNetwork,
        train: TokenSequences,
        val: TokenSequences,
        *,
        seed: int,
        path: Path,
        identity: Mapping[str, object],
        curve: LearningCurve,
    ) -> None:
        """Keep what the rounds need; see `imitate`."""
        super().__init__()
        self.config, self.tokenizer, self.pretrained = config, tokenizer, pretrained
        self.demonstrations, self.val, self.seed = train, val, seed
        self.discriminator = new_discriminator(config, pretrained, seed)
        self.env = TensorVecEnv(
            self.discriminator,
            train.context,
            horizon=train.tokens.shape[1],
            num_envs=config.environments,
            seed=seed,
        )
        self.round = 0
        self.ppo = new_model(config, self.env, pretrained, remaining=lambda: 1 - (self.round + 1) / config.iterations)
        # Less momentum than Adam's default: the opponent moves, and old gradients are of another game.
        self.optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999)
        )
        self.replay = Replay(config.replay_size, train.context.shape[1], train.tokens.shape[1])
        self.judged: dict[str, float] = {}
        self.run = TrainingRun(
            path,
            identity,
            modules={"policy": self.ppo.policy, "discriminator": self.discriminator},
            optimizers={"policy": self.ppo.policy.optimizer, "discriminator": self.optimizer},
            curve=curve,
            kept={"replay": self.replay},
        )

    def train(self) -> None:
        """The rounds that are left."""
        stage = Stage(
            name="imitation",
            steps=self.config.iterations,
            look_every=self.config.validate_rounds,
            begin=lambda: self._validate(0, []),
            step=self._play_round,
            look=self._validate,
        )
        self.run.resume()
        # Contexts are drawn by (seed, episode), and a round plays one episode: a resumed training then meets the
        # contexts of an unbroken one.
        self.env.episode = self.run.done.get(stage.name, 0)
        self.run.train([stage], title="imitation")

    def _play_round(self, number: int) -> Measured:
        self.round = number
        # Again for every round, so that a round is the same whether or not the training was resumed before it.
        seed_globals(self.seed, ADVERSARIAL, number)
        steps = self.config.environments * self.env.horizon
        self.ppo.learn(steps, callback=self, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        logged = self.ppo.logger.name_to_value
        measured = self.judged | {name: float(logged[f"train/{name}"]) for name in LOGGED}
        measured["entropy"] = -measured.pop("entropy_loss")
        self.run.curve.add("imitation", number + 1, **measured)
        return measured

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Judge and learn from the paths, and charge the policy for its distance from the pre-trained one."""
        buffer = self.ppo.rollout_buffer
        assert isinstance(buffer, EpisodeBuffer)
        # The buffer holds actions as [T, E, 1], and the context once per step: [T, E, C].
        tokens = torch.from_numpy(buffer.actions[:, :, 0].T.astype(np.int64))  # [E, T]
        context = torch.from_numpy(buffer.observations["context"][0])  # [E, C]
        with torch.no_grad():
            reference = log_probabilities(self.pretrained, tokens, context)
        # Log-ratios of single tokens add up to that of the whole path, by the chain rule. A KL term in the loss at the
        # visited states would leave out that an early token decides which states come later.
        divergence = buffer.log_probs - reference.numpy().T  # [T, E]
        self.judged = {
            "reward": float(buffer.rewards.sum(axis=0).mean()),
            "kl_to_pretrained": float(divergence.sum(axis=0).mean()),
        }
        # log 2 is the reward of a discriminator that cannot tell. As all paths are equally long, taking it off changes
        # no ranking, and the values, which start at 0, start near the truth.
        buffer.rewards -= np.log(2) + self.config.kl_weight * divergence
        ended = np.ones(buffer.n_envs)
        # Once more, as the library has computed the returns of the uncharged rewards. The paths are complete: nothing
        # is bootstrapped beyond their end.
        buffer.compute_returns_and_advantage(last_values=torch.zeros(buffer.n_envs), dones=ended)
        # After the returns are settled: the paths are rewarded by the discriminator that they were played against.
        self.judged |= self._train_discriminator(TokenSequences(context, tokens, torch.zeros(0)))

    def _train_discriminator(self, fresh: TokenSequences) -> dict[str, float]:
        config, random, demonstrations = (
            self.config,
            torch_generator(self.seed, DISCRIMINATOR, self.round),
            self.demonstrations,
        )
        batch = min(config.batch, len(demonstrations))
        replayed = round(config.replayed_share * batch) if len(self.replay.paths) else 0
        steps = []
        for _ in range(config.discriminator_steps):
            real = torch.randint(len(demonstrations), (batch,), generator=random)
            rows = torch.randint(len(fresh), (batch - replayed,), generator=random)
            former = self.replay.draw(replayed, random) if replayed else None
            fake = [fresh.take(rows), *filter(None, [former])]
            steps.append(
                update(
                    self.discriminator,
                    self.optimizer,
                    demonstrations.take(real),
                    TokenSequences(
                        torch.cat([part.context for part in fake]),
                        torch.cat([part.tokens for part in fake]),
                        fresh.returns,
                    ),
                    penalty_weight=config.gradient_penalty,
                    random=random,
                )
            )
        # Added after the steps, so that what is replayed comes from former rounds alone.
        self.replay.add(fresh.context, fresh.tokens)
        return mean_of(steps)

    def _validate(self, rounds: int, _: Sequence[Measured]) -> str:
        network = policy_of(self.ppo).to_network()
        losses = validation_losses(network, self.tokenizer, self.config, self.val)
        self.run.best.offer(losses[f"val_{self.config.criterion}"], rounds, network)
        shape = (len(self.val), 1, self.val.tokens.shape[1])
        # The same uniforms at each look: the curve then compares policies and not luck.
        uniforms = torch.rand(shape, generator=torch_generator(self.seed, VALIDATION), dtype=torch.float64)
        generated = sample_tokens(network, self.val.context, uniforms)[:, 0]
        on_real = last_logits(self.discriminator, self.val.tokens, self.val.context)
        on_generated = last_logits(self.discriminator, generated, self.val.context)
        told_apart = {"auc": auc(on_real, on_generated), "f1": f1(on_real, on_generated)}
        self.run.curve.add("validation", rounds, **losses, **told_apart)
        return f"CRPS {losses['val_crps']:.4f}, AUC {told_apart['auc']:.3f}"
