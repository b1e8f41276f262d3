"""Stochastic GFlowNet generators: they sample trajectories and say how far these are from balance.

Differences from code published with Pan et al. (2023), each of which changes what is learnt: the empty sequence is a
state of its own, so F(s0) and the first action are trained; actions are drawn from the very logits that the loss sees
(exploration is explicit: `explore` and the entropy ratio); the backward policy has a head of its own; entropies are
entropies.

Letters: B trajectories, T steps, D integers of a state, A actions, K parent slots, C context positions, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from baselines.gflownet.dynamics import ForwardDynamics, StickyNoise
from baselines.gflownet.environment import Environment
from baselines.gflownet.generator_config import STEPWISE, GeneratorConfig
from baselines.gflownet.losses import (
    detailed_balance,
    entropy_ratio,
    expected_balance,
    stochastic_db,
    sub_trajectory_balance,
    trajectory_balance,
)
from baselines.gflownet.losses.reduction import masked_mean
from baselines.gflownet.networks import FlowNetwork, ThoughtEncoder
from baselines.gflownet.trajectories import Trajectories


class StochasticDBGFlowNetGenerator(nn.Module):
    """Sampler with a forward policy, a backward policy, flows and learnt dynamics, trained to balance.

    Args:
        environment: what is built.
        config: noise, reward, condition, networks.
        thought: encoder of the context; None: no context.
        network: in place of a `FlowNetwork`: a module that is called in the same three ways.
    """

    def __init__(
        self,
        environment: Environment,
        config: GeneratorConfig,
        thought: ThoughtEncoder | None = None,
        network: FlowNetwork | None = None,
    ) -> None:
        super().__init__()
        if config.balance == "expected_balance" and environment.num_slots > 1:
            raise ValueError(f"expected_balance needs states with one parent; those of {environment.name} have more")
        self.environment, self.config = environment, config
        self.noise = StickyNoise(config.stick)
        self.network = network or FlowNetwork(environment, config, thought)
        self.thought = thought
        width = 0 if thought is None else thought.width
        self.dynamics = ForwardDynamics(environment, config.width, width) if self.learns_dynamics else None
        self.log_z: nn.Linear | None = None
        if config.explicit_z:
            self.log_z = nn.Linear(max(width, 1), 1)  # of a context, or of a constant
            nn.init.zeros_(self.log_z.weight)

    @property
    def learns_dynamics(self) -> bool:
        """Whether there is noise whose law is learnt and used."""
        # Blind to noise: the executed action is taken for the intended one, so there is nothing to tell apart.
        blind = self.config.balance == "detailed_balance"
        return self.config.learn_dynamics and self.config.stick > 0 and not blind

    @property
    def sees_noise(self) -> bool:
        """Whether the condition tells intended from executed actions."""
        return self.config.stick > 0 and self.config.balance != "detailed_balance"

    def flow_parameters(self) -> list[nn.Parameter]:
        """Of all but the dynamics and the explicit log Z."""
        return list(self.network.parameters())

    def encode(self, thought: torch.Tensor | None, count: int) -> torch.Tensor | None:
        """[count, W] encoded contexts, each repeated for the trajectories that share it; None without a context."""
        if self.thought is None:
            return None
        if thought is None:
            raise ValueError("this generator has a context encoder: give it a context")
        encoded = self.thought(thought)
        return encoded.repeat_interleave(count // len(encoded), dim=0)

    # Sampling

    def flattening(self) -> float:
        """The temperature of the policy while it collects trajectories for training."""
        return 1.0

    def action_law(
        self, states: torch.Tensor, thought: torch.Tensor | None, *, temperature: float = 1.0, explore: float = 0.0
    ) -> torch.Tensor:
        """[*, A] probabilities of the intended action in states [*, D], with an encoded context [*, W] each."""
        allowed = self.environment.allowed(states)
        # Forbidden actions leave before the temperature, so that none gets a share from flattening.
        logits = self.network.policy_logits(states, thought).masked_fill(~allowed, -torch.inf)
        # At temperature 1 the very logits that the loss sees; exploration is a mixture on top, and explicit.
        law = (logits if temperature == 1 else logits / temperature).softmax(dim=-1)
        return law if explore == 0 else (1 - explore) * law + explore * allowed / allowed.sum(dim=-1, keepdim=True)

    def sample(
        self,
        count: int,
        *,
        thought: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        exploring: bool = False,
    ) -> Trajectories:
        """Walk `count` trajectories at once, from torch's global random numbers.

        Args:
            count: B.
            thought: contexts [B, C] or [B, C, F]; fewer than B where consecutive trajectories share them.
            condition: [B, *] passed on to the reward.
            exploring: whether actions are drawn from the flattened policy with `explore`, as in training.
        """
        explore = {"temperature": self.flattening(), "explore": self.config.explore} if exploring else {}
        path, intended, executed, mask = [self.environment.initial(count)], [], [], []
        # No graph: the loss reads the states again, all of them in one pass.
        with torch.inference_mode():
            encoded = self.encode(thought, count)
            law = self._sampling_law(encoded, count, **explore)
            while (going := ~self.environment.ended(path[-1])).any():
                mask.append(going)
                intended.append(draw(law(path[-1])))
                executed.append(self._execute(path[-1], intended[-1]))
                path.append(self.environment.step(path[-1], executed[-1]))
        # [B, T + 1, D] states, then [B, T] each; those that ended early have stayed in their end.
        steps = (torch.stack(column, dim=1) for column in (path, intended, executed, mask))
        return Trajectories(*steps, thought=thought, condition=condition)

    def _sampling_law(
        self, encoded: torch.Tensor | None, count: int, **explore: float
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """`action_law` of the states [B, D] of one step; worked out once for all where there are fewer of them than
        B walks can take steps, and no context tells one walk's from another's.
        """
        states = self.environment.few_states() if encoded is None else None
        # A table pays only where there are fewer states than steps to be taken.
        if states is None or len(states) > count * self.environment.num_steps:
            return lambda states: self.action_law(states, encoded, **explore)
        table = self.action_law(states, None, **explore)
        return lambda states: table[self.environment.row_of(states)]

    def _execute(self, states: torch.Tensor, intended: torch.Tensor) -> torch.Tensor:
        """[B] what the environment makes of intended actions [B]."""
        if self.noise.alpha == 0:
            return intended
        return self.noise.execute(intended, self.environment.allowed(states))

    # Losses

    def log_partition(self, thought: torch.Tensor | None = None) -> torch.Tensor:
        """[B] log F(s0), the learnt log Z of each context [B, C(, F)]; [1] without a context."""
        encoded = self.encode(thought, 1 if thought is None else len(thought))
        if self.log_z is not None:
            source = next(self.log_z.parameters()).new_ones(1, 1) if encoded is None else encoded
            return self.log_z(source).squeeze(-1)
        count = 1 if encoded is None else len(encoded)
        return self.network(self.environment.initial(count), encoded).log_flow

    def log_rewards(self, batch: Trajectories) -> torch.Tensor:
        """[B] float64 log R of the ends, with floor and exponent."""
        log_rewards = self.environment.log_reward(batch.ends, batch.condition)
        # The floor before the exponent, as the setting says: a reward of 0 would have no logarithm.
        if self.config.reward_floor > 0:
            log_rewards = log_rewards.clamp(min=math.log(self.config.reward_floor))
        return self.config.reward_exponent * log_rewards

    def get_loss(self, batch: Trajectories) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The balance loss and what it was made of; T is the number of steps of the longest trajectory.

        Returns:
            The loss [] and, by name,
            inp_x [B, T + 1, D] states; inp_x_thought [B or fewer, C(, F)] contexts, where there are any;
            real_actions [B, T] executed; intended_actions [B, T]; mask [B, T] steps taken;
            pol_logits [B, T, A] masked logits of pi(.|s_t); log_policy [B, T, A] its log probabilities;
            pol_back_logits [B, T, K A] masked logits of P_B((slot, a)|s_{t+1});
            log_flows [B, T] log F(s_t); end_log_flow [B] log R of the end, floor and exponent included;
            log_z [B] log F(s_0); log_dynamics [B, T] log P(s_{t+1}|s_t, a_t), detached;
            residuals [B, T] (trajectory_balance: [B]; sub_trajectory_balance: [B, T + 1, T + 1]).
        """
        info = self._terms(batch)
        residuals = self._residuals(batch, info)
        info["residuals"] = residuals
        if self.config.balance == "trajectory_balance":
            return residuals.square().mean(), info
        if self.config.balance == "sub_trajectory_balance":
            pieces = sub_trajectory_balance.piece_weights(batch.mask, self.config.piece_decay)
            return torch.where(pieces > 0, pieces * residuals.square(), 0.0).sum(dim=(1, 2)).mean(), info
        # Steps beyond an end may have infinite residuals; they are put to 0 before anything is squared.
        return self._step_loss(torch.where(batch.mask, residuals, 0.0), info), info

    def get_dynamics_loss(
        self,
        states: torch.Tensor,
        intended: torch.Tensor,
        executed: torch.Tensor,
        thought: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy of the executed actions of N transitions.

        Args:
            states: [N, D].
            intended: [N].
            executed: [N].
            thought: [N, C(, F)] contexts, where there are any.

        Returns:
            The loss [] and accuracy [], the share of transitions whose likeliest outcome came.
        """
        if self.dynamics is None:
            raise ValueError("this generator learns no dynamics")
        encoded = self.encode(thought, len(states))
        log_law = self.dynamics(states, intended, encoded)
        accuracy = (log_law.argmax(dim=-1) == executed).float().mean()
        return nn.functional.nll_loss(log_law, executed), {"accuracy": accuracy.detach()}

    def log_dynamics_law(
        self, states: torch.Tensor, intended: torch.Tensor, thought: torch.Tensor | None
    ) -> torch.Tensor:
        """[*, A] log P(k|s, a) as the loss sees it, learnt or true, without a gradient."""
        # No gradient: the dynamics learn from what happened, in `get_dynamics_loss`, and not from the balance.
        with torch.no_grad():
            if self.dynamics is not None:
                return self.dynamics(states, intended, thought)
            # The true law of no noise, so that a blind condition is the case alpha = 0.
            noise = self.noise if self.sees_noise else StickyNoise(0.0)
            return noise.log_probabilities(intended, self.environment.allowed(states))

    def _terms(self, batch: Trajectories) -> dict[str, torch.Tensor]:
        states, mask = batch.states, batch.mask
        encoded = self.encode(batch.thought, len(batch))
        flows = self.network.along(states, encoded)
        allowed = self.environment.allowed(states[:, :-1])
        # P_B of a step belongs to the state that it enters, hence states[:, 1:]; [B, T, K, A] to [B, T, K A].
        pairs = self.environment.backward_allowed(states[:, 1:], noise=self.sees_noise).flatten(-2)
        # where the trajectory has ended every pair is let through: the step counts for nothing, and must not be nan
        pairs = pairs | ~mask[..., None]
        log_rewards = self.log_rewards(batch).to(flows.log_flow.dtype)
        log_flows = flows.log_flow
        # The head then has to learn only what is still to come; what is settled is known.
        if self.config.forward_looking:
            log_flows = log_flows + self._settled(batch).to(log_flows.dtype)
        if self.log_z is not None:
            source = log_flows.new_ones(len(states), 1) if encoded is None else encoded
            log_flows = torch.cat([self.log_z(source), log_flows[:, 1:]], dim=1)
        # An end's flow is its reward and nothing learnt; this also fills the steps after an early end.
        log_flows = torch.where(self.environment.ended(states), log_rewards[:, None], log_flows)
        info = {
            "inp_x": states,
            "real_actions": batch.executed,
            "intended_actions": batch.intended,
            "mask": mask,
            "pol_logits": flows.policy_logits[:, :-1].masked_fill(~allowed, -torch.inf),
            "pol_back_logits": flows.backward_logits[:, 1:].masked_fill(~pairs, -torch.inf),
            "log_flows": log_flows[:, :-1],
            "end_log_flow": log_flows[:, -1],
            "log_z": log_flows[:, 0],
        }
        if batch.thought is not None:
            info["inp_x_thought"] = batch.thought
        info["log_dynamics"] = torch.zeros_like(info["log_flows"])
        if self.sees_noise or self.config.balance == "expected_balance":
            thought = None if encoded is None else encoded[:, None].expand(*batch.intended.shape, -1)
            law = self.log_dynamics_law(states[:, :-1], self._actions(batch), thought)
            info["log_dynamics_law"], info["log_dynamics"] = law, _at(law, batch.executed)
        info["log_policy"] = info["pol_logits"].log_softmax(dim=-1)
        return info

    def _residuals(self, batch: Trajectories, info: Mapping[str, torch.Tensor]) -> torch.Tensor:
        actions = self._actions(batch)
        log_policy = _at(info["log_policy"], actions)
        # Pairs (slot, action) are numbered slot by slot, as `backward_allowed` flattens them.
        pair = self.environment.slots(batch.executed) * self.environment.num_actions + actions
        log_backward = _at(info["pol_back_logits"].log_softmax(dim=-1), pair)
        log_flows = torch.cat([info["log_flows"], info["end_log_flow"][:, None]], dim=1)
        log_dynamics = info["log_dynamics"]
        if self.config.balance == "stochastic_db":
            return stochastic_db.residuals(log_flows, log_policy, log_dynamics, log_backward)
        if self.config.balance == "detailed_balance":
            return detailed_balance.residuals(log_flows, log_policy, log_backward)
        if self.config.balance == "expected_balance":
            law, children = info["log_dynamics_law"], self._child_flows(batch)
            return expected_balance.residuals(log_flows, log_policy, law, children)
        log_forward = log_policy + log_dynamics
        if self.config.balance == "trajectory_balance":
            return trajectory_balance.residuals(
                info["log_z"], info["end_log_flow"], log_forward, log_backward, batch.mask
            )
        return sub_trajectory_balance.residuals(log_flows, log_forward, log_backward, batch.mask)

    def _actions(self, batch: Trajectories) -> torch.Tensor:
        """[B, T] the actions that the policy answers for."""
        return batch.executed if self.config.balance == "detailed_balance" else batch.intended

    def _settled(self, batch: Trajectories) -> torch.Tensor:
        """[B, T + 1] the part of log R that is settled in each state."""
        steps = self.environment.log_step_rewards(batch.states, batch.condition)
        # One column more in front: nothing is settled in the first state.
        return self.config.reward_exponent * nn.functional.pad(steps.cumsum(dim=1), (1, 0))

    def _child_flows(self, batch: Trajectories) -> torch.Tensor:
        """[B, T, A] log F of all children of the states passed; log R where a child is an end."""
        count, steps = batch.intended.shape
        num_actions = self.environment.num_actions
        parents = batch.states[:, :-1, None].expand(-1, -1, num_actions, -1)  # [B, T, A, D]
        actions = torch.arange(num_actions).expand(count, steps, -1)
        children = self.environment.step(parents, actions)
        encoded = self.encode(batch.thought, len(batch))
        if encoded is not None:
            encoded = encoded[:, None, None].expand(-1, steps, num_actions, -1)
        log_flows = self.network(children, encoded).log_flow
        condition = batch.condition
        if condition is not None:
            condition = condition[:, None, None].expand(-1, steps, num_actions, *condition.shape[1:])
        if self.config.forward_looking:
            raise ValueError("expected_balance has no forward-looking form here; set forward_looking false")
        # `log_rewards` reads the last state of trajectories; here each child is one of a single state, [B T A, 1, D].
        ends = Trajectories(
            children[:, :, :, None].flatten(0, 2), batch.intended, batch.executed, batch.mask,
            condition=None if condition is None else condition.flatten(0, 2),
        )  # fmt: skip
        log_rewards = self.log_rewards(ends).view(count, steps, num_actions).to(log_flows.dtype)
        return torch.where(self.environment.ended(children), log_rewards, log_flows)

    def _step_loss(self, residuals: torch.Tensor, info: dict[str, torch.Tensor]) -> torch.Tensor:
        """[] what residuals [B, T] of the steps cost."""
        return masked_mean(residuals.square(), info["mask"])


class StochasticKLGFlowNetGenerator(StochasticDBGFlowNetGenerator):
    """The same flows by the KL and entropy-ratio weighting of `losses.entropy_ratio`.

    Loss: mean of w(s) ((1 - lam) d^2 + 2 lam g(d)), lam = `kl_share`, w from the policy's own entropies; the policy
    that collects trajectories is pi^(1/r), r = H_hi/(gamma H_hi + (1 - gamma) H_lo) in [1, 1/gamma]. At gamma = 1 and
    kl_share = 0 every number is that of `StochasticDBGFlowNetGenerator`.
    """

    entropy_quantiles: torch.Tensor

    def __init__(self, environment: Environment, config: GeneratorConfig, *others: Any, **named: Any) -> None:
        super().__init__(environment, config, *others, **named)
        if config.balance not in STEPWISE:
            raise ValueError(f"the KL generator weighs steps; its balance must be one of {', '.join(STEPWISE)}")
        # A buffer, so that a checkpoint carries it: a resumed training flattens as the unbroken one does.
        self.register_buffer("entropy_quantiles", torch.full((2,), torch.nan))

    def flattening(self) -> float:
        """The entropy ratio; 1 before the first batch."""
        high, low = self.entropy_quantiles.tolist()
        return 1.0 if math.isnan(high) else entropy_ratio.entropy_ratio(high, low, self.config.gamma)

    def _step_loss(self, residuals: torch.Tensor, info: dict[str, torch.Tensor]) -> torch.Tensor:
        """Adds to the info entropy [B, T], of pi over its maximum, and weights [B, T] of the steps."""
        mask = info["mask"]
        allowed = self.environment.allowed(info["inp_x"][:, :-1])
        entropy = entropy_ratio.normalised_entropy(info["log_policy"].detach(), allowed)
        # Only in training: a measurement in between must not move what training goes by.
        if self.training:
            self.entropy_quantiles.copy_(
                entropy_ratio.updated_quantiles(self.entropy_quantiles, entropy, mask, self.config.quantile_decay)
            )
        info["entropy"], info["weights"] = entropy, entropy_ratio.step_weights(entropy, mask, self.config.gamma)
        return masked_mean(info["weights"] * entropy_ratio.mixed_penalty(residuals, self.config.kl_share), mask)


def draw(law: torch.Tensor) -> torch.Tensor:
    """[N] one action for each row of probabilities [N, A], by inversion; faster than torch.multinomial.

    Where rounding leaves the sum below the uniform number it is the last action, which is always allowed.
    """
    levels = torch.rand(len(law), 1, dtype=law.dtype, device=law.device)
    return (law.cumsum(dim=-1)[:, :-1] <= levels).sum(dim=-1)


def _at(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """[B, T] entries of [B, T, N] at [B, T]."""
    return table.gather(-1, index[..., None]).squeeze(-1)
