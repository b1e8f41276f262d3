"""What a GFlowNet acts in: states as rows of integers, all operations on whole batches.

Letters: * any batch shape, D integers of a state, A actions, K slots through which a state can be entered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch


class Environment(ABC):
    """States, actions and rewards, without the noise (`baselines.gflownet.dynamics.StickyNoise`).

    Attributes:
        name: of the task.
        num_actions: A.
        num_slots: K: 1 where every state has one parent only; else the slot is the action that was executed.
        num_steps: T, most steps to an end.
        num_features: F, length of `encode`.
        vocabulary: size of the tokens of a state where states are sequences (BOS, tokens so far, padding), which a
            causal transformer can read; None elsewhere.
    """

    name: str
    num_actions: int
    num_slots: int
    num_steps: int
    num_features: int
    vocabulary: int | None = None

    @abstractmethod
    def initial(self, count: int) -> torch.Tensor:
        """[count, D] the first state."""

    def few_states(self) -> torch.Tensor | None:
        """[N, D] all states in which an action is chosen, in the order of `row_of`, where they can be listed."""
        return None

    def row_of(self, states: torch.Tensor) -> torch.Tensor:
        """[*] row of `few_states`; of an ended state, any."""
        raise NotImplementedError(f"the states of {self.name} are not listed")

    @abstractmethod
    def allowed(self, states: torch.Tensor) -> torch.Tensor:
        """[*, A] whether an action can be taken; the last one always can, even where the end is reached."""

    @abstractmethod
    def step(self, states: torch.Tensor, executed: torch.Tensor) -> torch.Tensor:
        """[*, D] where the executed actions [*] lead; an ended state stays."""

    @abstractmethod
    def ended(self, states: torch.Tensor) -> torch.Tensor:
        """[*] whether these are terminal."""

    @abstractmethod
    def backward_allowed(self, states: torch.Tensor, *, noise: bool) -> torch.Tensor:
        """[*, K, A] which (slot, intended action) may have led here; without noise the intended is the executed."""

    @abstractmethod
    def slots(self, executed: torch.Tensor) -> torch.Tensor:
        """[*] the slot through which an executed action enters its state."""

    @abstractmethod
    def encode(self, states: torch.Tensor) -> torch.Tensor:
        """[*, F] float features for a multi-layer perceptron."""

    @abstractmethod
    def log_reward(self, states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """[*] float64 log R of terminal states, given what the reward depends on beside them."""

    def log_step_rewards(self, states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """[B, T] float64 terms of log R, each known as soon as its state is reached, for trajectories [B, T + 1, D].

        Raises:
            NotImplementedError: the reward does not fall into such terms.
        """
        raise NotImplementedError(f"the reward of {self.name} is not a sum over steps: no forward-looking flows")


class SequenceEnvironment(Environment):
    """Sequences of T tokens out of V, one per step; a state is BOS, the tokens so far, and padding: D = T + 1.

    Every state has one parent, so flows on it are those of a tree with V^T ends.
    """

    num_slots = 1

    def __init__(self, name: str, num_tokens: int, num_steps: int) -> None:
        self.name = name
        self.num_actions, self.num_steps = num_tokens, num_steps
        self.bos, self.padding = num_tokens, num_tokens + 1
        self.vocabulary = num_tokens + 2
        self.num_features = num_steps * (num_tokens + 1)

    def initial(self, count: int) -> torch.Tensor:
        """[count, D] BOS alone."""
        states = torch.full((count, self.num_steps + 1), self.padding)
        # BOS makes the empty sequence a state like any other. Without it neither F(s0) nor the first action would be
        # trained.
        states[:, 0] = self.bos
        return states

    def lengths(self, states: torch.Tensor) -> torch.Tensor:
        """[*] number of tokens so far."""
        return (states != self.padding).sum(dim=-1) - 1

    def allowed(self, states: torch.Tensor) -> torch.Tensor:
        """[*, V] every token, always."""
        return torch.ones(*states.shape[:-1], self.num_actions, dtype=torch.bool, device=states.device)

    def step(self, states: torch.Tensor, executed: torch.Tensor) -> torch.Tensor:
        """[*, D] with one token more."""
        position = (self.lengths(states) + 1)[..., None]
        # An ended state has no room for a token: the clamp keeps scatter within it, and `where` leaves it as it was.
        longer = states.scatter(-1, position.clamp(max=self.num_steps), executed[..., None])
        return torch.where(position <= self.num_steps, longer, states)

    def ended(self, states: torch.Tensor) -> torch.Tensor:
        """[*] whether all T tokens are there."""
        return states[..., -1] != self.padding

    def backward_allowed(self, states: torch.Tensor, *, noise: bool) -> torch.Tensor:
        """[*, 1, V] any token may have been intended; without noise, the last one."""
        # With noise the executed token tells nothing certain of the intended one.
        if noise:
            return self.allowed(states)[..., None, :]
        last = states.gather(-1, self.lengths(states)[..., None])
        return (last == torch.arange(self.num_actions, device=states.device))[..., None, :]

    def slots(self, executed: torch.Tensor) -> torch.Tensor:
        """[*] zeros: there is one parent."""
        return torch.zeros_like(executed)

    def encode(self, states: torch.Tensor) -> torch.Tensor:
        """[*, T (V + 1)] one-hot tokens, padding included; BOS alone is a row of padding."""
        tokens = states[..., 1:].clamp(max=self.num_actions + 1)
        tokens = torch.where(tokens == self.padding, self.num_actions, tokens)
        return torch.nn.functional.one_hot(tokens, self.num_actions + 1).flatten(-2).to(torch.get_default_dtype())
