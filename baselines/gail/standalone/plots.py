"""Pictures of real and generated paths.

Letters: N paths, H steps, V tokens there are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines.gail.demonstrations import Demonstrations
from baselines.gail.discriminator import auc, roc
from baselines.gail.standalone.judgement import Judgement
from preprocessing.files import AtomicFiles

REAL = "#222222"
COLORS = ("#2a6f97", "#c8553d")
"""Of the judged policies, in their order."""
BOX_DAYS = 10
"""Steps for which boxes are drawn, spread evenly."""
BINS = 40


def draw_all(
    folder: Path, test: Demonstrations, tokens: np.ndarray, num_tokens: int, judged: dict[str, Judgement]
) -> None:
    """Write tokens.png, boxes.png, prices.png, and roc.png where there is a discriminator.

    Args:
        folder: where to.
        test: real paths.
        tokens: [N, H] theirs.
        num_tokens: V.
        judged: the policies by name.
    """
    figures = {
        "tokens": token_histogram(tokens, num_tokens, judged),
        "boxes": boxes(test, judged),
        "prices": price_histogram(test, judged),
    }
    if all(judgement.real_logits is not None for judgement in judged.values()):
        figures["roc"] = roc_curves(judged)
    for name, figure in figures.items():
        with AtomicFiles() as files:
            figure.savefig(files.open(Path(folder) / f"{name}.png"), format="png", dpi=120)


def token_histogram(tokens: np.ndarray, num_tokens: int, judged: dict[str, Judgement]) -> Figure:
    """Share of each token in real and generated paths."""
    figure, axes = _figure("Tokens: share of each", "token (from the lowest returns to the highest)", "share")
    positions = np.arange(num_tokens)
    axes.bar(positions, np.bincount(tokens.ravel(), minlength=num_tokens) / tokens.size, color="#bbbbbb", label="real")
    for (name, judgement), color in zip(judged.items(), COLORS, strict=False):
        made = judgement.generated_tokens
        axes.plot(positions, np.bincount(made.ravel(), minlength=num_tokens) / made.size, ".-", color=color, label=name)
    axes.legend()
    return figure


def boxes(test: Demonstrations, judged: dict[str, Judgement]) -> Figure:
    """Quartiles of the scaled return since the start at some steps; whiskers from 5 % to 95 %."""
    horizon = test.returns.shape[1]
    steps = np.unique(np.linspace(1, horizon, min(BOX_DAYS, horizon)).round().astype(int))
    figure, axes = _figure("Return since the start", "step", "log return over the volatility of a step")
    paths = {"real": test.returns.double().numpy()} | {name: j.generated for name, j in judged.items()}
    width = 0.8 / len(paths)
    for number, ((name, returns), color) in enumerate(zip(paths.items(), (REAL, *COLORS), strict=False)):
        drawn = axes.boxplot(
            np.cumsum(returns, axis=1)[:, steps - 1],
            positions=np.arange(len(steps)) + width * (number - (len(paths) - 1) / 2),
            widths=0.8 * width,
            whis=(5, 95),
            showfliers=False,
            manage_ticks=False,
            boxprops={"color": color},
            whiskerprops={"color": color},
            capprops={"color": color},
            medianprops={"color": color},
        )
        drawn["boxes"][0].set_label(name)
    axes.set_xticks(np.arange(len(steps)), [str(step) for step in steps])
    axes.legend()
    return figure


def price_histogram(test: Demonstrations, judged: dict[str, Judgement]) -> Figure:
    """Prices after the last step, each over its price before the first: one start for all stocks."""
    figure, axes = _figure("Price after the last step", "price over the price before the first step", "density")
    real = test.prices(test.returns.double().numpy())[:, -1] / test.start
    edges = np.histogram_bin_edges(real, BINS).tolist()
    axes.hist(real, edges, density=True, color="#bbbbbb", label="real")
    for (name, judgement), color in zip(judged.items(), COLORS, strict=False):
        last = test.prices(judgement.generated)[:, -1] / test.start
        axes.hist(last, edges, density=True, histtype="step", linewidth=1.5, color=color, label=name)
    axes.legend()
    return figure


def roc_curves(judged: dict[str, Judgement]) -> Figure:
    """What the discriminator tells apart; the diagonal: nothing."""
    figure, axes = _figure("Discriminator on paths it has not seen", "generated called real", "real called real")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--")
    for (name, judgement), color in zip(judged.items(), COLORS, strict=False):
        assert judgement.real_logits is not None
        assert judgement.generated_logits is not None
        false_positive, true_positive = roc(judgement.real_logits, judgement.generated_logits)
        area = auc(judgement.real_logits, judgement.generated_logits)
        axes.plot(false_positive, true_positive, color=color, label=f"{name}: AUC {area:.3f}")
    axes.set_aspect("equal")
    axes.legend(loc="lower right")
    return figure


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes
