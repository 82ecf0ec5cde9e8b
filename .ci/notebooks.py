"""Run every notebook from top to bottom in a fresh kernel of this interpreter; nothing is written back.

Usage: ``python .ci/notebooks.py [FILE ...]``; by default all of ``notebooks/``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
_CELL_S = 180


def execute(path: Path) -> None:
    """Run one.

    Raises:
        CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=_CELL_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()


def main(names: list[str]) -> int:
    # No window, whatever the notebook asks for.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    failed = 0
    for path in [Path(name).resolve() for name in names] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        try:
            execute(path)
        except CellExecutionError as problem:
            failed += 1
            sys.stderr.write(f"{path.name}: {problem}\n")
        else:
            sys.stdout.write(f"{path.name}: all cells ran\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
