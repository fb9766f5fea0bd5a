import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from codec.errors import DataError
from codec.evaluation.figures import save_figure
from codec.training.curves import curves_figure, read_curves


def log(run, steps, value, purge_step=None):
    with SummaryWriter(str(run / "tensorboard"), purge_step=purge_step) as writer:
        for step in steps:
            writer.add_scalar("loss/mel", value + step, step)
            writer.add_scalar("validation_stoi/1.5_kbps", 0.5, step)


def test_curves_of_a_run_that_was_resumed(tmp_path):
    """What was logged after the checkpoint that it went on from is not part of it."""
    log(tmp_path, range(1, 8), 0.0)
    log(tmp_path, range(5, 7), 100.0, purge_step=5)
    curve = read_curves(tmp_path)["loss/mel"]
    assert curve.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert curve.values.tolist() == [1, 2, 3, 4, 105, 106]


def test_the_plot_has_a_panel_a_group(tmp_path):
    log(tmp_path, range(1, 700), 1.0)
    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        writer.add_scalar("loss/mel", np.nan, 700)
        writer.add_scalar("throughput/steps_per_second", 1.0, 700)
    figure = curves_figure(read_curves(tmp_path), "a run")
    assert [axes.get_title() for axes in figure.axes] == ["losses", "STOI (0 to 1), held out"]
    (line,) = figure.axes[0].get_lines()
    assert len(line.get_xdata()) == 200
    assert line.get_ydata()[[0, -1]].tolist() == [np.mean([2, 3, 4, 5]), np.mean([698, 699, 700])]
    save_figure(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("make", "words"), [(False, "there is no such run"), (True, "no Tensor")])
def test_no_curves_is_an_error(tmp_path, make, words):
    run = tmp_path / "run"
    if make:
        run.mkdir()
    with pytest.raises(DataError, match=words):
        read_curves(run)


def test_other_curves_are_an_error(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("throughput/steps_per_second", 1.0, 1)
    with pytest.raises(DataError, match="no curves of losses"):
        curves_figure(read_curves(tmp_path), "a run")
