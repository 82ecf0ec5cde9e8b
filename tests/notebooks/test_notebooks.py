"""Every notebook runs from top to bottom in a fresh kernel, and shows what it promises."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    notebook = nbformat.read(path, as_version=4)
    # The kernel imports what the tests import, installed or not.
    places = [str(ROOT)] + [p for p in (os.environ.get("PYTHONPATH"),) if p]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    return notebook


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
def test_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = _outputs(_run(ROOT / "notebooks" / "quickstart.ipynb", monkeypatch))
    data = [output.data for output in outputs if "data" in output]
    assert any("image/png" in one for one in data), "the chart"
    assert sum("text/html" in one for one in data) == 2, "the summary and the comparison"
    told = "".join(output.text for output in outputs if output.output_type == "stream")
    matched, total = (int(part) for part in told.split(" decisions")[0].split(" of "))
    assert 0 < matched <= total
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_all_notebooks_are_tested() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_holds_no_outputs(path: Path) -> None:
    """Outputs come from running it; committed ones only make differences."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not _outputs(notebook)
