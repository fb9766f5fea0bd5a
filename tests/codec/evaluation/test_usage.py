import numpy as np
import pytest
from rich.console import Console

from codec.evaluation.figures import save_figure
from codec.evaluation.usage import codebook_usage, usage_figure, usage_table


def test_what_codebooks_say():
    """One always says the same, one has four rows alike, one has 1/2, 1/4, 1/8, 1/8."""
    codes = np.array([[5] * 8, [0, 1, 2, 3] * 2, [7, 7, 7, 7, 1, 1, 2, 3]], np.uint16)
    same, even, uneven = codebook_usage([codes[:, :3], codes[:, 3:]], 8)
    assert (same.used, same.entropy, same.perplexity) == (1 / 8, 0, 1)
    assert (even.used, even.entropy, even.perplexity) == (1 / 2, 2, 4)
    assert uneven.entropy == pytest.approx(1.75)
    assert uneven.hits.tolist() == [0, 2, 1, 1, 0, 0, 0, 4]


@pytest.mark.parametrize(("frames", "warned"), [(79, True), (80, False)])
def test_the_table_warns_of_few_frames(frames, warned):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(usage_table(codebook_usage([np.zeros((2, frames), np.uint16)], 8)))
    assert "12.5%" in capture.get() and "of 3 bits" in capture.get()
    assert ("few frames" in capture.get()) == warned


def test_the_plot_is_a_png(tmp_path):
    codes = np.random.default_rng(0).integers(0, 8, (3, 50)).astype(np.uint16)
    save_figure(usage_figure(codebook_usage([codes], 8)), tmp_path / "usage.png")
    assert (tmp_path / "usage.png").read_bytes().startswith(b"\x89PNG")
