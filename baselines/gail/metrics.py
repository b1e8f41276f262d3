"""How well real and generated paths can be told apart, and how far their laws are.

Letters: N real paths, M generated ones, T steps.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def auc(real: np.ndarray, generated: np.ndarray) -> float:
    """Area under the ROC curve of scores: the chance that a real path scores above a generated one, ties half.

    0.5: they cannot be told apart; 1: always (Mann & Whitney 1947).
    """
    ranks = rankdata(np.concatenate([real, generated]))
    least = len(real) * (len(real) + 1) / 2
    return float((ranks[: len(real)].sum() - least) / (len(real) * len(generated)))


def f1(real: np.ndarray, generated: np.ndarray) -> float:
    """F1 of calling a path real where its logit is positive: 2 TP / (2 TP + FP + FN); 0 where none is called so."""
    true_positive, false_positive = int((real > 0).sum()), int((generated > 0).sum())
    return 2 * true_positive / (true_positive + false_positive + len(real))


def roc(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of generated and of real paths whose score is at least each threshold, from none to all."""
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([real, generated]))[::-1]])
    return tuple((scores[None] >= thresholds[:, None]).mean(axis=1) for scores in (generated, real))  # type: ignore[return-value]
