import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "streaming.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """In a folder of its own, without a model of the user's."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = str(tmp_path_factory.mktemp("notebook"))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        patch.delenv("SOTTO_MODEL", raising=False)
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def figures(notebook: NotebookNode) -> dict:
    """The values that the last cell shows."""
    (shown,) = notebook.cells[-1].outputs
    return ast.literal_eval(shown.data["text/plain"])


def images(notebook: NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_the_stream_equals_the_whole(executed):
    found = figures(executed)
    assert found["largest"] > 0.01
    assert found["difference"] < 2e-3 * found["largest"]  # a running phase adds rounding up
    assert found["ahead_difference"] < 1e-5
    assert found["same_codes"] > 0.99


def test_a_model_that_looks_ahead_waits_for_its_context_too(executed):
    found = figures(executed)
    assert found["after"] > 0
    frames = [window + found["after"] for window in found["windows"]]
    assert found["delays"] == pytest.approx([found["frame"] * n for n in frames])


def test_too_little_overlap_is_wrong_and_the_computed_one_is_not(executed):
    found = figures(executed)
    context = max(found["before"], found["after"])
    errors = found["errors"]
    assert max(errors[context:]) < -100
    assert errors[0] > -60
    # How much the outermost frames count is the weights' to say, so not one frame less.
    assert errors[context // 4] > errors[context] + 20


def test_every_cost_is_measured_and_every_figure_drawn(executed):
    found = figures(executed)
    assert min(found["stream_costs"] + found["ahead_costs"]) > 0
    assert len(images(executed)) == 4


def test_what_is_shown_on_a_code_host_is_a_small_and_whole_run():
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    assert len(text) < 400_000
    assert len(images(notebook)) == 4
    assert figures(notebook)["difference"] < 1e-3
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert str(Path.home()) not in text and str(ROOT) not in text
