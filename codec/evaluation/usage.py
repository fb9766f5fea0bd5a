"""How evenly codebooks are used on real speech: what they could say, and what they do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

# With fewer the entropy of what was seen is too low: by about (rows - 1) / (2 frames) nats.
_ENOUGH_FRAMES_A_ROW = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one codebook.

    Attributes:
        hits: int64 (codebook_size,), frames that each row was chosen for.
    """

    hits: NDArray[np.int64]

    @property
    def used(self) -> float:
        """Share of the rows that were chosen at least once, 0 to 1."""
        return float((self.hits > 0).mean())

    @property
    def entropy(self) -> float:
        """Bits a code carries, were each frame alone: -Σ p log2 p, 0 to log2 of the size."""
        shares = self.hits[self.hits > 0] / self.hits.sum()
        return float(-(shares * np.log2(shares)).sum()) + 0.0  # no -0

    @property
    def perplexity(self) -> float:
        """2 to the entropy: rows of an evenly used codebook that would say as much."""
        return float(2.0**self.entropy)


def codebook_usage(codes: Sequence[NDArray[np.integer]], codebook_size: int) -> list[Usage]:
    """Counts the rows in recordings' codes, (n_quantizers, frames) each; one `Usage` a codebook."""
    books = np.concatenate(codes, axis=1)
    return [Usage(np.bincount(book, minlength=codebook_size)) for book in books]


def usage_table(usages: Sequence[Usage]) -> Table:
    """Rows used, perplexity and entropy of each codebook."""
    size, frames = len(usages[0].hits), int(usages[0].hits.sum())
    bits = np.log2(size)
    table = Table(
        title=f"Codebooks of {size} rows over {frames:,} frames",
        caption="few frames a row: all of it is more, given more speech"
        if frames < _ENOUGH_FRAMES_A_ROW * size
        else None,
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("codebook", "rows used", "perplexity", "entropy (bits)", f"of {bits:g} bits"):
        table.add_column(heading, justify="right")
    for number, usage in enumerate(usages, start=1):
        table.add_row(
            str(number),
            f"{usage.used:.1%}",
            f"{usage.perplexity:.0f}",
            f"{usage.entropy:.2f}",
            f"{usage.entropy / bits:.1%}",
        )
    return table


def usage_figure(usages: Sequence[Usage]) -> Figure:
    """Entropy of each codebook as bars; beside it, how often its rows are chosen, by rank."""
    size = len(usages[0].hits)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    bars, ranks = figure.subplots(1, 2)
    numbers = np.arange(1, len(usages) + 1)
    bars.bar(numbers, [usage.entropy for usage in usages], color="#0072b2")
    bars.axhline(np.log2(size), color="#666", linestyle="--", label="all rows alike")
    bars.set(xlabel="codebook", ylabel="entropy (bits)", xticks=numbers)
    bars.legend(loc="lower right")
    for number, usage in zip(numbers, usages, strict=True):
        shade = 0.15 + 0.7 * (number - 1) / max(1, len(usages) - 1)
        share = np.sort(usage.hits)[::-1] / max(1, usage.hits.sum())
        ranks.plot(np.arange(1, size + 1), share * size, color=str(shade), label=str(number))
    ranks.axhline(1.0, color="#666", linestyle="--")
    ranks.set(xlabel="rows, most chosen first", ylabel="chosen, to an even share", yscale="log")
    ranks.legend(title="codebook", fontsize=7)
    return figure
