"""How well a network knows what a trader does next, beside what knows less.

Markets are mostly luck, and the return to go of a recorded bar holds what came of the very action that is to be
predicted. A high accuracy proves little by itself; so the same test bars are judged with other returns to go, and by
models without any:

    decision_transformer    the recorded return to go, which SEES THE FUTURE; as published work reports it
    target_return           begins at a quantile of the training markets' returns, less what was earned since
    constant_return         the median of the training bars on every bar
    shuffled_return         the return to go that fits another market's total
    bc                      behaviour cloning: trained without returns to go
    bc_best_25, bc_best_10  the same, trained on the best 25 and 10 % of the training markets (%BC)
    majority                always the most frequent action of the training bars

The first four are one set of weights; the clones are trained by themselves. Where target_return is no better than bc,
the returns to go are worth nothing; where shuffled_return is as good as decision_transformer, they are not used.

Letters: N windows, T bars of a window, A actions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from baselines.decision_transformer.model import DecisionTransformer
from baselines.trader.actions import Action
from baselines.trader.dataset import TraderDataset
from baselines.trader.network_fitting import Batch, batches
from grpo.evaluation.markdown import markdown
from preprocessing.files import JsonObject
from preprocessing.seeds import generator

QUANTILES = (0.5, 0.75, 0.9, 0.95)
"""Of the training markets' returns, kept with the weights as targets."""
TARGET_QUANTILE = 0.9
"""The one that target_return begins at."""
RESAMPLES = 1000
"""Bootstrap samples of whole markets behind each interval."""
NUM_ACTIONS = len(Action)


@dataclass(frozen=True, kw_only=True)
class ActionScores:
    """How well actions were predicted.

    Attributes:
        accuracy: share of bars whose most likely action was taken.
        accuracy_low: 2.5 % quantile of the accuracy over bootstrap samples of whole markets.
        accuracy_high: 97.5 % quantile.
        balanced_accuracy: mean over the actions that were taken of the share that was found.
        macro_f1: mean F1 over the actions that were taken or predicted.
        log_loss: nats per bar; None for a forecast without probabilities.
        bars: how many were judged.
        markets: how many they come from.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    macro_f1: float
    log_loss: float | None
    bars: int
    markets: int


@dataclass(frozen=True, eq=False)
class Judgement:
    """One row of the report.

    Attributes:
        name: as in the docstring of this module.
        scores: on the test bars.
        confusion: [A, A] bars by action taken (row) and predicted (column).
        own_weights: whether it was trained by itself; the others share one set of weights, or have none.
        sees_future: whether it was given something that no one knows in time.
    """

    name: str
    scores: ActionScores
    confusion: np.ndarray
    own_weights: bool
    sees_future: bool


@dataclass(frozen=True, kw_only=True)
class ReturnErrors:
    """Error of the predicted next return to go, in the unit of the rewards times 100 (percent of capital).

    Attributes:
        rmse: root mean squared error of the return head.
        mae: mean absolute error.
        unchanged_rmse: the same of saying that the next return to go is this one.
        unchanged_mae: its mean absolute error.
    """

    rmse: float
    mae: float
    unchanged_rmse: float
    unchanged_mae: float


def action_probabilities(network: DecisionTransformer, data: TraderDataset, returns_to_go: np.ndarray) -> np.ndarray:
    """[N, T, A] of the recorded bars, each given the recorded actions before it and these returns to go [N, T]."""
    return _predict(network, data, returns_to_go)[0]


def return_errors(network: DecisionTransformer, data: TraderDataset) -> ReturnErrors:
    """How well the return head foresees the next bar's return to go, given this bar's."""
    predicted = _predict(network, data, data.returns_to_go)[1][:, :-1] / network.config.return_scale
    has_next = data.mask[:, :-1] & data.mask[:, 1:]
    truth = data.returns_to_go[:, 1:].astype(float)
    errors = {"": predicted - truth, "unchanged_": data.returns_to_go[:, :-1] - truth}
    found = {}
    for name, error in errors.items():
        percent = 100 * error[has_next]
        found[f"{name}rmse"] = float(np.sqrt(np.mean(percent**2))) if len(percent) else float("nan")
        found[f"{name}mae"] = float(np.mean(np.abs(percent))) if len(percent) else float("nan")
    return ReturnErrors(**found)


def confusion_matrix(taken: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[A, A] how often each action was taken (row) and predicted (column)."""
    return np.bincount(NUM_ACTIONS * taken + predicted, minlength=NUM_ACTIONS**2).reshape(NUM_ACTIONS, NUM_ACTIONS)


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Mean over the actions that were taken of the share that was predicted."""
    taken = confusion.sum(axis=1)
    return float(np.mean(np.diag(confusion)[taken > 0] / taken[taken > 0]))


def macro_f1(confusion: np.ndarray) -> float:
    """Mean over the actions that were taken or predicted of 2 TP / (taken + predicted)."""
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * np.diag(confusion)[either > 0] / either[either > 0]))


def market_totals(data: TraderDataset) -> dict[str, float]:
    """The return of each market: its return to go at the first bar."""
    # The first window of each market in time; only its first bar has the return of the whole market to go.
    first = np.lexsort((data.start, data.market))
    names, rows = np.unique(data.market[first], return_index=True)
    return dict(zip(names.tolist(), data.returns_to_go[first[rows], 0].tolist(), strict=True))


def best_markets(data: TraderDataset, share: float) -> TraderDataset:
    """The windows of the markets with the highest returns; at least one market."""
    totals = market_totals(data)
    kept = sorted(totals, key=lambda market: -totals[market])[: max(1, round(share * len(totals)))]
    rows = np.isin(data.market, kept)
    return TraderDataset(**{f.name: getattr(data, f.name)[rows] for f in dataclasses.fields(TraderDataset)})


def with_totals(data: TraderDataset, totals: Mapping[str, float]) -> np.ndarray:
    """[N, T] the returns to go that each market would show if its whole return were another.

    That is the total less what was earned before the bar; where `totals` do not come from the market itself, it
    holds nothing of its future.
    """
    own = market_totals(data)
    # One shift for all bars of a market: what was earned before a bar stays as it was.
    shift = np.array([totals[market] - own[market] for market in data.market])
    return (data.returns_to_go + shift[:, None]).astype(np.float32)


def other_markets_totals(data: TraderDataset, seed: int) -> dict[str, float]:
    """To each market the return of another one, drawn at random; to a single one its own."""
    own = market_totals(data)
    order = generator(seed).permutation(np.array(list(own)))
    # A circle: moved on by one, no market gets its own return.
    return {market: own[other] for market, other in zip(order.tolist(), np.roll(order, 1).tolist(), strict=True)}


def judge(
    name: str,
    data: TraderDataset,
    probabilities: np.ndarray,
    *,
    own_weights: bool = False,
    sees_future: bool = False,
    certain: bool = False,
) -> Judgement:
    """Score action probabilities [N, T, A]; `certain` ones are 0 or 1 and have no log loss."""
    taken, likely = data.actions[data.mask], probabilities[data.mask].argmax(axis=-1)
    confusion = confusion_matrix(taken, likely)
    chosen = np.take_along_axis(probabilities[data.mask], taken[:, None], axis=1)
    low, high = _accuracy_interval(np.broadcast_to(data.market[:, None], data.mask.shape)[data.mask], taken == likely)
    scores = ActionScores(
        accuracy=float(np.mean(taken == likely)),
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=balanced_accuracy(confusion),
        macro_f1=macro_f1(confusion),
        # A probability that rounds to 0 would cost infinitely many nats.
        log_loss=None if certain else float(-np.log(np.maximum(chosen, 1e-12)).mean()),
        bars=len(taken),
        markets=len(np.unique(data.market)),
    )
    return Judgement(name, scores, confusion, own_weights, sees_future)


def judge_all(
    network: DecisionTransformer,
    clones: Mapping[str, DecisionTransformer],
    data: Mapping[str, TraderDataset],
    *,
    seed: int,
) -> list[Judgement]:
    """Every row of the report, on the test split.

    Args:
        network: conditioned on returns to go.
        clones: networks without them, by name.
        data: windows by split.
        seed: of the shuffling.
    """
    train, test = data["train"], data["test"]
    # From the training markets: a target taken from the test markets would know their future.
    target = float(np.quantile(list(market_totals(train).values()), TARGET_QUANTILE))
    median = float(np.median(train.returns_to_go[train.mask]))
    returns = {
        "decision_transformer": test.returns_to_go,
        "target_return": with_totals(test, dict.fromkeys(market_totals(test), target)),
        "constant_return": np.full_like(test.returns_to_go, median),
        "shuffled_return": with_totals(test, other_markets_totals(test, seed)),
    }
    rows = [
        judge(
            name,
            test,
            action_probabilities(network, test, given),
            own_weights=name == "decision_transformer",
            sees_future=name == "decision_transformer",
        )
        for name, given in returns.items()
    ]
    for name, clone in clones.items():
        rows.append(judge(name, test, action_probabilities(clone, test, test.returns_to_go), own_weights=True))
    majority = np.bincount(train.actions[train.mask], minlength=NUM_ACTIONS).argmax()
    always = np.broadcast_to(np.eye(NUM_ACTIONS)[majority], (*test.mask.shape, NUM_ACTIONS))
    return [*rows, judge("majority", test, always, certain=True)]


def as_json(rows: list[Judgement], errors: ReturnErrors, about: Mapping[str, object]) -> JsonObject:
    """The report as plain values."""
    judgements = {
        row.name: {
            **dataclasses.asdict(row.scores),
            "own_weights": row.own_weights,
            "sees_future": row.sees_future,
            "confusion": row.confusion.tolist(),
        }
        for row in rows
    }
    return {**about, "actions": [action.name for action in Action], "rows": judgements, "returns": vars(errors)}


def as_markdown(rows: list[Judgement], errors: ReturnErrors, about: Mapping[str, object]) -> str:
    """The report to read."""
    names = [action.name for action in Action]
    counts = {name: [str(row[i]) for row in rows[0].confusion] for i, name in enumerate(names)}
    lines = [
        "# What the trader does next",
        "",
        f"{rows[0].scores.bars} test bars of {rows[0].scores.markets} markets that lie after those of the training; "
        "each action is predicted from the recorded bars before it. Intervals: 95 %, whole markets resampled.",
        "",
        _scores_table(rows),
        "",
        "The recorded return to go of a bar holds what came of its action: decision_transformer is no forecast. "
        f"target_return begins at the {TARGET_QUANTILE:.0%} quantile of the training markets' returns instead, "
        "constant_return is the training median on every bar, shuffled_return that of another market; these share "
        "the weights of decision_transformer. The clones bc, bc_best_25 and bc_best_10 know no returns; the latter "
        "two are trained on the best 25 and 10 % of the training markets.",
        "",
        "## Confusion of decision_transformer",
        "",
        markdown({"taken \\ predicted": names, **counts}),
        "",
        "## Next return to go",
        "",
        f"RMSE {errors.rmse:.4g} %, MAE {errors.mae:.4g} % of capital; left unchanged from bar to bar "
        f"{errors.unchanged_rmse:.4g} % and {errors.unchanged_mae:.4g} %.",
        "",
        *(f"* {name}: {value}" for name, value in about.items()),
        "",
    ]
    return "\n".join(lines)


def _scores_table(rows: list[Judgement]) -> str:
    scores = [row.scores for row in rows]
    return markdown(
        {
            "model": [row.name for row in rows],
            "accuracy": [f"{each.accuracy:.4f}" for each in scores],
            "interval": [f"{each.accuracy_low:.4f} to {each.accuracy_high:.4f}" for each in scores],
            "balanced accuracy": [f"{each.balanced_accuracy:.4f}" for each in scores],
            "macro F1": [f"{each.macro_f1:.4f}" for each in scores],
            "log loss": ["" if each.log_loss is None else f"{each.log_loss:.4f}" for each in scores],
            "own weights": ["yes" if row.own_weights else "no" for row in rows],
            "sees the future": ["yes" if row.sees_future else "no" for row in rows],
        }
    )


def _predict(
    network: DecisionTransformer, data: TraderDataset, returns_to_go: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, T, A] and predicted next returns [N, T], times the return scale; 0 without a return head."""
    device = next(network.parameters()).device
    windows = Batch.of(dataclasses.replace(data, returns_to_go=returns_to_go), device)
    probabilities, next_returns = [], []
    with torch.no_grad():
        for batch in batches(windows, 64):
            found = network(batch.states, batch.actions, batch.returns_to_go)
            probabilities.append(found.action_logits.double().softmax(dim=-1).cpu().numpy())
            heads = torch.zeros_like(batch.returns_to_go) if found.next_returns is None else found.next_returns
            next_returns.append(heads.double().cpu().numpy())
    return np.concatenate(probabilities), np.concatenate(next_returns)


def _accuracy_interval(market: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the accuracy over bootstrap samples of whole markets."""
    _, number = np.unique(market, return_inverse=True)
    bars = np.bincount(number)
    hits = np.bincount(number, weights=right)
    # Whole markets: the bars of one hang together, and single ones would make the interval too narrow.
    drawn = generator(0).integers(len(bars), size=(RESAMPLES, len(bars)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / bars[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)
