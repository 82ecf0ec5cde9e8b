"""What setup.cfg demands, docs/dependencies.md explains, and the code imports."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Distributions whose modules have another name.
MODULES = {"pyzmq": "zmq", "pyjwt": "jwt"}
#: tzdata holds data, no code.
NOT_IMPORTED = {"tzdata"}
#: Imported if it is there, and missed in words if it is not.
OPTIONAL = {"keyring"}


def _names(requirements: str) -> set[str]:
    return {re.split(r"[^\w.-]", line.strip())[0] for line in requirements.strip().splitlines()}


def _demanded() -> tuple[set[str], set[str]]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return _names(settings["options"]["install_requires"]), _names(settings["options.extras_require"]["test"])


def _explained(heading: str) -> set[str]:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    return {name.strip() for row in rows[1:] for name in row.split(",")}


def _imported() -> set[str]:
    found = set()
    for folder in ("bt_ibkr", "feeds", "brokers", "strategies"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"bt_ibkr"}


def test_document_explains_what_is_demanded() -> None:
    to_run, to_test = _demanded()
    assert _explained("To run") == to_run
    assert _explained("To test") == to_test


def test_code_imports_what_is_demanded() -> None:
    to_run, _ = _demanded()
    assert _imported() - OPTIONAL == {MODULES.get(name, name) for name in to_run - NOT_IMPORTED}


def test_notebook_extra_is_part_of_the_tests() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    assert _names(extras["notebook"]) <= _names(extras["test"])
