"""Trade files of a trader whose policy is known, so that what can be learnt from them is known too.

    python -m baselines.decision_transformer simulate --output-dir downloads/merged_trades --policy noisy_rsi

The policy `rsi` decides at the close of each bar, from three features of the state alone (`rsi_policy`): it buys while
RSI is low and its inventory small, and sells while its profit is high. It trades at the next open. A model that sees
the states of the pipeline can therefore reach an accuracy of 1.

`noisy_rsi` does so too, but with probability `noise` takes one of the five actions at random instead. The best guess
from the state is still the policy's action, right with probability 1 - noise + noise / 5 (`bayes_accuracy`).

Sizes are NORMAL and STRONG tokens; since less than half of the buys and of the sales are strong, the pipeline's
threshold at the median size tells them apart. The log odds of the price are a random walk that is pulled back to even.

Letters: T bars.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from baselines.trader.actions import Action
from baselines.trader.features import PERIODS, WARM_UP
from baselines.trader.ingestion import FILE_PATTERN, TraderDataError
from baselines.trader.positions import Position
from preprocessing.command_line import parse_config
from preprocessing.files import JsonObject, write_atomically
from preprocessing.seeds import generator

PolicyName = Literal["rsi", "noisy_rsi"]
LOW_RSI, VERY_LOW_RSI = 40.0, 32.0
SMALL_INVENTORY, LARGE_INVENTORY = 55.0, 45.0
"""Tokens below which the policy buys, and from which on it sells a lot; they lie between what it can hold."""
PROFIT_PERCENT = 5.0
NORMAL, STRONG = 10.0, 30.0
"""Tokens of a trade."""
SIZES = {
    Action.STRONG_BUY: STRONG,
    Action.BUY: NORMAL,
    Action.HOLD: 0.0,
    Action.SELL: -NORMAL,
    Action.STRONG_SELL: -STRONG,
}
RSI_MARGIN, PROFIT_MARGIN = 1.0, 0.25
"""Points of RSI, and percent of profit, that are kept free around a threshold."""
TICKS = (0.1, 0.5, 0.9)
"""When the prices of a bar come, in bars after its beginning."""
STEP, PULL = 0.05, 0.003
"""Deviation of the log odds from one price to the next, and the share by which they go back to 0."""
FIRST_TIME = 1_767_225_600
"""Beginning of the first market: 1 January 2026, UTC."""
MAX_NOISE = 0.3
"""With more, half of the trades are strong, and the median size no longer tells them apart."""
POLICY_FILE = "policy.json"


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """What the simulated trader does, and how long."""

    output_dir: Path
    """Folder for the files; it must hold no trade files yet."""
    markets: int = 60
    """Number of markets, one after another in time."""
    bars: int = 300
    """Bars of a market; the first ones, on which the indicators settle, see no trade."""
    policy: PolicyName = "rsi"
    """`rsi` always acts by the policy, `noisy_rsi` with probability `noise` at random."""
    noise: float = 0.2
    """Probability of a random action of `noisy_rsi`, at most .3."""
    seed: int = 0
    """Seed of everything random."""
    bar_seconds: int = 900
    """Length of a bar; the pipeline must be told the same."""

    def __post_init__(self) -> None:
        if self.markets < 1 or self.bar_seconds < 10:
            raise ValueError(f"markets must be at least 1, bar_seconds 10; got {self.markets}, {self.bar_seconds}")
        if self.bars < WARM_UP + 2:
            raise ValueError(f"bars must be at least {WARM_UP + 2}, for the indicators to settle; got {self.bars}")
        if not 0 <= self.noise <= MAX_NOISE:
            raise ValueError(f"noise must lie between 0 and {MAX_NOISE}; got {self.noise}")

    @property
    def randomness(self) -> float:
        """Probability of a random action."""
        return self.noise if self.policy == "noisy_rsi" else 0.0


@dataclass(frozen=True, kw_only=True)
class SimulatedMarket:
    """One market.

    Attributes:
        slug: its name.
        events: of its file.
        actions: [T - 1 - WARM_UP] what the trader does after each bar from WARM_UP to the last but one.
        policy: [T - 1 - WARM_UP] what the policy says there; the same where there is no noise.
    """

    slug: str
    events: list[JsonObject]
    actions: np.ndarray
    policy: np.ndarray


def rsi_policy(rsi: float, inventory: float, pnl_percent: float) -> Action:
    """The action at a state, from three of its features in their units."""
    if inventory > 0 and pnl_percent >= PROFIT_PERCENT:
        return Action.STRONG_SELL if inventory >= LARGE_INVENTORY else Action.SELL
    if rsi < LOW_RSI and inventory < SMALL_INVENTORY:
        return Action.STRONG_BUY if rsi < VERY_LOW_RSI else Action.BUY
    return Action.HOLD


def bayes_accuracy(noise: float) -> float:
    """Accuracy of the best guess of the action from the state."""
    return 1 - noise + noise / len(Action)


class _Rsi:
    """Wilder's index of closes that come one by one; the same as `preprocessing.indicators` computes of all."""

    def __init__(self) -> None:
        self._count, self._rise, self._fall = 0, 0.0, 0.0

    def averages(self, change: float) -> tuple[float, float]:
        """Averages of rises and falls after one more change of the close."""
        # Wilder's average is a plain mean until there are enough values.
        weight = 1 / min(self._count + 1, PERIODS.rsi)
        rise = self._rise + weight * (max(change, 0.0) - self._rise)
        return rise, self._fall + weight * (max(-change, 0.0) - self._fall)

    def value(self, change: float) -> float:
        rise, fall = self.averages(change)
        return 100 * rise / (rise + fall) if rise + fall > 0 else 50.0

    def add(self, change: float) -> None:
        self._rise, self._fall = self.averages(change)
        self._count += 1


def simulate_market(config: SimulationConfig, number: int) -> SimulatedMarket:
    """The market of a number (from 0); it depends on the seed and the number alone."""
    random = generator(config.seed, number)
    start = FIRST_TIME + number * config.bars * config.bar_seconds  # seconds
    events: list[JsonObject] = []
    actions, policies = [], []
    log_odds, rsi, position, action = 0.0, _Rsi(), Position(), Action.HOLD
    before = 0.5
    for bar in range(config.bars):
        begin = 1000 * (start + bar * config.bar_seconds)
        if SIZES[action]:
            # One millisecond into the bar and at the last price: what was decided at a close is done at the next open.
            events.append(_trade(begin + 1, before, SIZES[action]))
            position = position.trade(SIZES[action], before, begin + 1)
        for tick in TICKS[:-1]:
            log_odds = _step(log_odds, random)
            events.append(_price(begin, tick, config, _probability(log_odds)))
        last = _step(log_odds, random)
        # Drawn again while RSI or profit lies near a threshold of the policy: rounding must not change an action, and a
        # learner need not resolve what no trader would.
        while _near_a_threshold(rsi.value(_probability(last) - before) if bar else 50.0, position, _probability(last)):
            last = _step(log_odds, random)
        log_odds, close = last, _probability(last)
        events.append(_price(begin, TICKS[-1], config, close))
        if bar:
            strength = rsi.value(close - before)
            rsi.add(close - before)
            # Nothing is decided before the indicators have settled, nor at the last close, which no bar follows.
            if WARM_UP <= bar < config.bars - 1:
                policies.append(rsi_policy(strength, position.inventory, _pnl_percent(position, close)))
                noisy = random.random() < config.randomness
                action = Action(int(random.integers(len(Action)))) if noisy else policies[-1]
                actions.append(action)
        before = close
    return SimulatedMarket(
        slug=f"btc-simulated-{start}",
        events=events,
        actions=np.array(actions, np.int64),
        policy=np.array(policies, np.int64),
    )


def _step(log_odds: float, random: np.random.Generator) -> float:
    return (1 - PULL) * log_odds + STEP * float(random.standard_normal())


def _probability(log_odds: float) -> float:
    # Prices have four decimals, and a market of a probability never quite reaches 0 or 1.
    return min(max(round(1 / (1 + math.exp(-log_odds)), 4), 1e-4), 1 - 1e-4)


def _pnl_percent(position: Position, price: float) -> float:
    if not position.inventory:
        return 0.0
    return 100 * position.unrealised_pnl(price) / (abs(position.inventory) * position.entry_price)


def _near_a_threshold(rsi: float, position: Position, price: float) -> bool:
    near = min(abs(rsi - LOW_RSI), abs(rsi - VERY_LOW_RSI)) < RSI_MARGIN
    return near or abs(_pnl_percent(position, price) - PROFIT_PERCENT) < PROFIT_MARGIN


def _price(begin: int, tick: float, config: SimulationConfig, price: float) -> JsonObject:
    return {"t": begin + round(1000 * tick * config.bar_seconds), "type": "price", "price": price}


def _trade(time: int, price: float, size: float) -> JsonObject:
    side, size = "BUY" if size > 0 else "SELL", abs(size)
    return {"t": time, "type": "trade", "price": price, "side": side, "size": size, "usdc": round(price * size, 6)}


def write_markets(config: SimulationConfig) -> int:
    """Write one file per market and POLICY_FILE, which tells the truth about them; gives the number of events.

    Raises:
        TraderDataError: the folder holds trade files already.
    """
    if any(config.output_dir.rglob(FILE_PATTERN)):
        raise TraderDataError(f"--output-dir {config.output_dir} holds trade files already; name another folder.")
    count = 0
    for number in range(config.markets):
        market = simulate_market(config, number)
        content = json.dumps({"slug": market.slug, "prices": market.events}, separators=(",", ":"))
        write_atomically(config.output_dir / config.policy / f"{market.slug}_prices.json", content)
        count += len(market.events)
    told = {
        "policy": config.policy,
        "noise": config.randomness,
        "bayes_accuracy": bayes_accuracy(config.randomness),
        "seed": config.seed,
        "markets": config.markets,
        "bars": config.bars,
        "bar_seconds": config.bar_seconds,
    }
    write_atomically(config.output_dir / POLICY_FILE, json.dumps(told, indent=2) + "\n")
    return count


def run(flags: Sequence[str], program: str) -> None:
    """The command `simulate`."""
    about = "Write trade files of a trader whose policy is known."
    config = parse_config(SimulationConfig, flags, prog=program, description=about)
    events = write_markets(config)
    accuracy = bayes_accuracy(config.randomness)
    told = f"{config.markets} markets, {events} events, best accuracy from the state {accuracy:.4f}"
    print(f"{config.output_dir}: {told}")
