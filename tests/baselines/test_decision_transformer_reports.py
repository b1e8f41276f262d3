"""The report on a trader's Decision Transformer: scores by hand, and what each row may know."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from baselines.decision_transformer.model import DecisionTransformer, ModelConfig, Predictions
from baselines.trader.action_scores import (
    action_probabilities,
    as_markdown,
    balanced_accuracy,
    best_markets,
    confusion_matrix,
    judge,
    judge_all,
    macro_f1,
    market_totals,
    other_markets_totals,
    return_errors,
    with_totals,
)
from baselines.trader.dataset import TraderDataset
from tests.baselines.trader_toys import buys_low, splits


@pytest.fixture
def two_markets() -> TraderDataset:
    """Market a of 3 bars in windows of 2 and 1, market b of 2 bars; the windows in no order."""
    rewards = np.array([[0.03, 0.0], [0.05, -0.01], [0.01, 0.02]], np.float32)
    return TraderDataset(
        states=np.zeros((3, 2, 17), np.float32),
        actions=np.array([[0, 2], [2, 2], [4, 1]]),
        rewards=rewards,
        returns_to_go=np.array([[0.03, 0.0], [0.04, -0.01], [0.06, 0.05]], np.float32),
        mask=np.array([[True, False], [True, True], [True, True]]),
        market=np.array(["a", "b", "a"]),
        start=np.array(["2026-01-01T01", "2026-01-02", "2026-01-01"], "datetime64[ms]"),
    )


def one_hot(actions: list[list[int]]) -> np.ndarray:
    return np.eye(5)[np.array(actions)]


def test_scores_by_hand(two_markets):
    # taken 0 | 2 2 | 4 1, predicted 0 | 2 0 | 4 4; the padded bar does not count
    judged = judge("it", two_markets, one_hot([[0, 4], [2, 0], [4, 4]]), certain=True)
    expected = np.zeros((5, 5), int)
    expected[0, 0] = expected[2, 2] = expected[2, 0] = expected[4, 4] = expected[1, 4] = 1
    np.testing.assert_array_equal(judged.confusion, expected)
    scores = judged.scores
    assert (scores.bars, scores.markets, scores.log_loss) == (5, 2, None)
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.balanced_accuracy == pytest.approx((1 + 0 + 1 / 2 + 1) / 4)  # of 0, 1, 2 and 4; 3 was never taken
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0 + 2 / 3 + 2 / 3) / 4)
    # market a: 2 of 3 right, market b: 1 of 2; both twice is the least and the most that two draws can give
    assert (scores.accuracy_low, scores.accuracy_high) == (pytest.approx(1 / 2), pytest.approx(2 / 3))


def test_log_loss_by_hand(two_markets):
    probabilities = np.full((3, 2, 5), 0.2)
    probabilities[0, 0] = [0.6, 0.1, 0.1, 0.1, 0.1]
    loss = judge("it", two_markets, probabilities).scores.log_loss
    assert loss == pytest.approx(-(math.log(0.6) + 4 * math.log(0.2)) / 5)


def test_an_action_that_is_neither_taken_nor_predicted_does_not_count():
    confusion = confusion_matrix(np.array([1, 1, 2]), np.array([1, 2, 2]))
    assert balanced_accuracy(confusion) == pytest.approx((1 / 2 + 1) / 2)
    assert macro_f1(confusion) == pytest.approx(2 / 3)


def test_totals_are_returns_from_a_markets_first_bar(two_markets):
    assert market_totals(two_markets) == {"a": pytest.approx(0.06), "b": pytest.approx(0.04)}
    kept = best_markets(two_markets, 0.5)
    assert kept.market.tolist() == ["a", "a"]
    assert kept.actions.tolist() == [[0, 2], [4, 1]]
    assert len(best_markets(two_markets, 0.01)) == 2


def test_another_total_is_reached_by_what_was_earned_since(two_markets):
    given = with_totals(two_markets, {"a": 0.10, "b": 0.0})
    np.testing.assert_allclose(given[2], [0.10, 0.10 - 0.01], atol=1e-7)  # a, first two bars
    assert given[0, 0] == pytest.approx(0.10 - 0.01 - 0.02)  # its third bar
    np.testing.assert_allclose(given[1], [0.0, -0.05], atol=1e-7)
    assert other_markets_totals(two_markets, seed=3) == {"a": pytest.approx(0.04), "b": pytest.approx(0.06)}


def test_a_target_holds_nothing_of_the_markets_future(two_markets):
    """Later rewards change the recorded returns to go of all earlier bars, and no return to go of a target."""
    later = two_markets.returns_to_go.copy()
    later[2] += 0.5
    later[0, 0] += 0.5  # the last bar of market a earns .5 more
    changed = dataclasses.replace(two_markets, returns_to_go=later)
    targets = {"a": 0.1, "b": 0.1}
    before, after = (with_totals(data, targets)[data.mask] for data in (two_markets, changed))
    np.testing.assert_allclose(after, before, atol=1e-7)


class KnowsReturns(torch.nn.Module):
    """Says that the next return to go is half of this one, and acts by the sign of this one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = ModelConfig()

    def forward(self, states, actions, returns):
        logits = torch.zeros(*returns.shape, 5)
        logits[..., 1] = 50.0 * (returns > 0.045)
        return Predictions(logits, 50 * returns)


def test_return_errors_by_hand(two_markets):
    errors = return_errors(KnowsReturns(), two_markets)  # pyright: ignore[reportArgumentType]
    # in percent: b goes from 4 to -1 and 2 was said, a from 6 to 5 and 3 was said; a's other window has one bar
    assert errors.rmse == pytest.approx(math.sqrt((3**2 + 2**2) / 2), rel=1e-5)
    assert errors.mae == pytest.approx((3 + 2) / 2, rel=1e-5)
    assert errors.unchanged_rmse == pytest.approx(math.sqrt((5**2 + 1**2) / 2), rel=1e-5)
    assert errors.unchanged_mae == pytest.approx((5 + 1) / 2, rel=1e-5)


def test_each_row_is_given_its_own_returns(two_markets):
    data = {"train": two_markets, "val": two_markets, "test": two_markets}
    rows = {row.name: row for row in judge_all(KnowsReturns(), {}, data, seed=3)}  # pyright: ignore[reportArgumentType]
    assert [*rows] == ["decision_transformer", "target_return", "constant_return", "shuffled_return", "majority"]
    # returns above .045 are answered with BUY (1): recorded a1 a2 | target (.058) a1 a2 b1 | constant (.04) none
    # | shuffled (a .04, b .06) b1
    predicted_buys = {name: int(row.confusion[:, 1].sum()) for name, row in rows.items()}
    assert predicted_buys == {
        "decision_transformer": 2,
        "target_return": 3,
        "constant_return": 0,
        "shuffled_return": 1,
        "majority": 0,
    }
    assert rows["majority"].confusion[:, 2].sum() == 5
    assert [name for name, row in rows.items() if row.sees_future] == ["decision_transformer"]


def test_probabilities_do_not_depend_on_the_batch():
    data = splits(buys_low, train=140, bars=4)["train"]
    torch.manual_seed(0)
    network = DecisionTransformer(ModelConfig(d_model=8, num_layers=1, num_heads=1, context=4)).eval()
    together = action_probabilities(network, data, data.returns_to_go)
    alone = dataclasses.replace(data, **{f: getattr(data, f)[130:131] for f in vars(data)})
    np.testing.assert_allclose(action_probabilities(network, alone, alone.returns_to_go)[0], together[130], rtol=1e-5)
    np.testing.assert_allclose(together.sum(axis=-1), 1)


def test_the_markdown_has_a_line_per_row(two_markets):
    data = {"train": two_markets, "val": two_markets, "test": two_markets}
    network = KnowsReturns()
    rows = judge_all(network, {}, data, seed=3)  # pyright: ignore[reportArgumentType]
    text = as_markdown(rows, return_errors(network, two_markets), {"markets": 2})  # pyright: ignore[reportArgumentType]
    row = rows[0].scores
    [line] = [line for line in text.splitlines() if line.startswith("| decision_transformer ")]
    assert line.split("|")[2].strip() == f"{row.accuracy:.4f}"
    assert "5 test bars of 2 markets" in text
    assert "* markets: 2" in text
