"""A positive target whose expectation is exp(x b): gamma quasi-likelihood with log link, also known as QLIKE.

The loss is the mean of y exp(-x b) + x b. It is convex in b, and its minimum estimates the conditional mean whatever
the law of y. As a loss for variances it ranks forecasts rightly even where y is only a noisy, unbiased measure of the
variance (Patton 2011, "Volatility forecast comparison using imperfect volatility proxies").

Letters: N rows, F inputs.
"""

from __future__ import annotations

import numpy as np

MAX_STEPS = 100
TOLERANCE = 1e-10
"""Newton stops once a full step can lower the loss by no more than this."""
MAX_HALVINGS = 50


def qlike(target: np.ndarray, log_mean: np.ndarray) -> float:
    """Mean of y exp(-log mean) + log mean, for targets y [N] of at least 0."""
    return float((target * np.exp(-log_mean) + log_mean).mean())


def fit_gamma(inputs: np.ndarray, target: np.ndarray, penalty: float = 0.0) -> np.ndarray:
    """[F + 1] intercept and weights of the log mean, by Newton's method with halved steps.

    Args:
        inputs: [N, F], best of mean 0 and standard deviation 1.
        target: [N] at least 0, not all 0.
        penalty: times half the squared weights is added to the loss; the intercept is free.

    Raises:
        ValueError: a target is below 0 or not finite, or all are 0.
    """
    if not (np.isfinite(target).all() and (target >= 0).all() and target.any()):
        raise ValueError("the target of a gamma regression must be finite, at least 0, and not 0 everywhere")
    x = np.column_stack([np.ones(len(inputs)), inputs])
    ridge = np.full(x.shape[1], penalty)
    # The intercept is not penalised: a penalty would pull the level of all forecasts towards exp(0) = 1.
    ridge[0] = 0.0

    def loss(weights: np.ndarray) -> float:
        with np.errstate(over="ignore"):  # too long a step, which is halved
            return qlike(target, x @ weights) + 0.5 * float(ridge @ weights**2)

    weights = np.zeros(x.shape[1])
    # The best constant to begin with: from 0, a small target such as a variance makes the first step huge.
    weights[0] = np.log(target.mean())
    for _ in range(MAX_STEPS):
        ratio = target * np.exp(-(x @ weights))
        gradient = x.T @ (1 - ratio) / len(x) + ridge * weights
        curvature = (x * ratio[:, None]).T @ x / len(x) + np.diag(ridge)
        # least squares, as inputs that repeat each other leave the curvature singular
        step = np.linalg.lstsq(curvature, gradient, rcond=1e-10)[0]
        if gradient @ step < TOLERANCE:
            break
        # The loss is convex, so halving the step in Newton's direction must end no higher than it began.
        before, size = loss(weights), 1.0
        for _ in range(MAX_HALVINGS):
            if loss(weights - size * step) <= before:
                break
            size /= 2
        weights = weights - size * step
    return weights
