"""What a trained Decision Transformer would do: on recorded bars, and step by step in a market that answers.

    trader = TraderInference.load("models")
    prediction = trader.predict_with_target_rtg(states, target_rtg=0.02)   # states [1, 128, 17]
    prediction.probabilities[0, -1]                                        # of the action after the last bar

The target is the return (share of capital) to be earned from the first bar on. What was earned since is taken off,
R_(t+1) = R_t - r_t, in the prediction as in the roll-out; no return comes from the future. `targets` holds quantiles
of what the trader's own markets returned in training: a target far beyond them is one the network has never seen.

Letters: B sequences, T bars, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from baselines.decision_transformer.model import DecisionTransformer, KeyValueCache
from baselines.trader.dataset import scaling_of
from baselines.trader.network_fitting import BEST, read_best, require_device
from baselines.trader.states import StateScaling
from preprocessing.files import JsonObject


@dataclass(frozen=True, eq=False)
class ActionPrediction:
    """Actions of bars.

    Attributes:
        probabilities: [B, T, A] float64.
        actions: [B, T] int64 most likely action of each bar.
    """

    probabilities: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True, eq=False)
class Rollout:
    """What was done in a market that answered, and what it brought.

    Attributes:
        actions: [B, T] int64.
        rewards: [B, T] return of each bar.
        returns_to_go: [B, T] that the network was given.
    """

    actions: np.ndarray
    rewards: np.ndarray
    returns_to_go: np.ndarray


class Market(Protocol):
    """B markets side by side that answer an action with a return and the next state."""

    def reset(self) -> np.ndarray:
        """[B, 17] scaled states of the first bar."""
        ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[B, 17] scaled states of the next bar and [B] returns of this one, after actions [B]."""
        ...


@dataclass(frozen=True, eq=False)
class TraderInference:
    """A trained network, ready to act.

    Attributes:
        network: in evaluation mode.
        targets: quantiles of the training markets' returns, by level: {"0.9": .031, ...}.
        scaling: what turns states into the scores that the network was trained on; None where unknown.
    """

    network: DecisionTransformer
    targets: dict[str, float]
    scaling: StateScaling | None

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu") -> TraderInference:
        """Read the best checkpoint of the command `train`.

        Args:
            path: its output folder, or a checkpoint in it.
            device: where to compute.

        Raises:
            SavedFileError: there is none, or it is damaged; the message names the file.
            ValueError: the device is not there.
        """
        path = Path(path)
        network, header = read_best(path / BEST if path.is_dir() else path)
        notes: JsonObject = header["notes"]
        scaling = scaling_of(notes["data"]) if "data" in notes else None
        return cls(network.to(require_device(device)), notes.get("targets", {}), scaling)

    def predict_with_target_rtg(
        self,
        states: np.ndarray | torch.Tensor,
        target_rtg: float,
        *,
        actions: np.ndarray | None = None,
        rewards: np.ndarray | None = None,
    ) -> ActionPrediction:
        """The actions of bars, of which nothing but the states has to be known.

        Args:
            states: [B, T, 17] scaled states of T bars up to now; T at most the context (128).
            target_rtg: return to be earned from the first bar on, as a share of capital: .02 is 2 %.
            actions: [B, T] that were taken; None: on each bar the network's most likely one, in turn.
            rewards: [B, T] return of each bar, of which the last is not used; None: nothing was earned yet.

        Raises:
            ValueError: a shape is wrong, there are too many bars, or a number is not finite.
        """
        given = self._tensor("states", states, (None, None, self.network.config.state_size))
        shape = (given.shape[0], given.shape[1])
        earned = torch.zeros(shape) if rewards is None else self._tensor("rewards", rewards, shape).cpu()
        # R_t is the target less what was earned BEFORE bar t: the bar's own reward is not known when it is decided.
        before = torch.nn.functional.pad(earned.double().cumsum(dim=1)[:, :-1], (1, 0))  # [B, T]
        returns_to_go = (float(target_rtg) - before).to(given)
        taken = None if actions is None else self._actions(actions, shape)
        cache, logits = self.network.new_cache(shape[0]), []
        previous = None
        with torch.no_grad():
            for bar in range(shape[1]):
                logits.append(self.network.step(cache, given[:, bar], returns_to_go[:, bar], previous))
                # Without recorded actions the network follows itself; each bar then knows the actions that were chosen
                # before it.
                previous = logits[-1].argmax(dim=-1) if taken is None else taken[:, bar]
        probabilities = torch.stack(logits, dim=1).double().softmax(dim=-1).cpu().numpy()
        return ActionPrediction(probabilities, probabilities.argmax(axis=-1))

    def roll_out(
        self, market: Market, target_rtg: float, *, bars: int, generator: np.random.Generator | None = None
    ) -> Rollout:
        """Act in a market for some bars, aiming at a return.

        Beyond the context, the network sees the last half of a context and what follows, so that it re-reads
        bars once per half context and not at every bar.

        Args:
            market: answers with states and returns.
            target_rtg: return to be earned over all the bars.
            bars: how many.
            generator: draws the actions from their probabilities; None: the most likely ones.
        """
        state = np.asarray(market.reset())
        returns = np.full(len(state), float(target_rtg))
        history: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # states, returns to go, actions
        rewards, cache = [], self.network.new_cache(len(state))
        for _ in range(bars):
            # The positions are learnt up to the context and no further. Half of it is read again, so that this happens
            # once per half context and not at every bar.
            if cache.bars == self.network.config.context:
                cache = self._read_again(history[-(self.network.config.context // 2) :])
            previous = history[-1][2] if cache.bars else None
            probabilities = self._step(cache, state, returns, previous)
            actions = probabilities.argmax(axis=-1) if generator is None else _draw(probabilities, generator)
            history.append((state, returns, actions))
            state, reward = market.step(actions)
            rewards.append(reward)
            # The targets come down by what was earned, as in the prediction above; no return comes from the future.
            returns = returns - reward
        return Rollout(
            np.stack([actions for *_, actions in history], axis=1),
            np.stack(rewards, axis=1),
            np.stack([given for _, given, _ in history], axis=1),
        )

    def _read_again(self, history: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> KeyValueCache:
        """A cache of these bars."""
        cache, previous = self.network.new_cache(len(history[0][0])), None
        for state, returns, actions in history:
            self._step(cache, state, returns, previous)
            previous = actions
        return cache

    def _step(
        self, cache: KeyValueCache, state: np.ndarray, returns: np.ndarray, previous: np.ndarray | None
    ) -> np.ndarray:
        """[B, A] probabilities of the next bar."""
        weight = self.network.action_head.weight
        with torch.no_grad():
            logits = self.network.step(
                cache,
                torch.as_tensor(state).to(weight),
                torch.as_tensor(returns).to(weight),
                None if previous is None else torch.as_tensor(previous).to(weight.device),
            )
        return logits.double().softmax(dim=-1).cpu().numpy()

    def _tensor(self, name: str, values: np.ndarray | torch.Tensor, shape: tuple[int | None, ...]) -> torch.Tensor:
        found = torch.as_tensor(values)
        if found.ndim != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, found.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must have shape [{wanted}]; got {list(found.shape)}")
        if not torch.isfinite(found).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        return found.to(self.network.action_head.weight)

    def _actions(self, actions: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
        found = self._tensor("actions", actions, shape).long()
        if len(found) and not ((found >= 0) & (found < self.network.config.num_actions)).all():
            raise ValueError(f"actions must lie in 0..{self.network.config.num_actions - 1}")
        return found


def _draw(probabilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[B] one action each, drawn from probabilities [B, A] by inversion."""
    uniform = generator.random((len(probabilities), 1))
    # Rounding may leave the last sum below the uniform number.
    return np.minimum((probabilities.cumsum(axis=1) < uniform).sum(axis=1), probabilities.shape[1] - 1)
