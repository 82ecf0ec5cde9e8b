"""What lies in the repository: names at its top, and words that must not be in it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = {
    "setup.cfg", "bt_ibkr", "feeds", "brokers", "strategies", "tests", "notebooks", "pyproject.toml", "docs",
    "benchmarks", ".ci", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "ruff.toml", ".gitignore",
}  # fmt: skip
REQUIRED = TOP - {"benchmarks"}
#: Spelt in parts, so that this file does not name them.
_HOSTS = ("py" + "pi.", "python" + "hosted.", "npm" + "js.", "ana" + "conda.", "index" + "-url")
#: Homes and mounts of one machine; ``/tmp`` and ``/usr`` are everybody's.
_ABSOLUTE = re.compile(r"(?<![\w./:~}>-])/(?:home|Users|root|work|mnt|Volumes)/\w|[A-Za-z]:\\Users\\\w")


@cache
def _tracked() -> tuple[Path, ...]:
    """The repository's own files: those git has, or would take."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name.decode() for name in done.stdout.split(b"\0") if name)
    return tuple(path for path in paths if path.is_symlink() or path.is_file())


def _texts() -> list[tuple[str, int, str]]:
    lines = []
    for path in _tracked():
        if path.is_symlink():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        name = path.relative_to(ROOT).as_posix()
        lines += [(name, number, line) for number, line in enumerate(text.splitlines(), start=1)]
    return lines


def test_top_level_holds_the_allowed_names_only() -> None:
    there = {path.relative_to(ROOT).parts[0] for path in _tracked()}
    assert not there - TOP
    assert not REQUIRED - there


def test_nothing_names_a_package_registry() -> None:
    found = [f"{name}:{number}" for name, number, line in _texts() if any(h in line.lower() for h in _HOSTS)]
    assert not found


def test_nothing_names_a_path_of_one_machine() -> None:
    found = [f"{name}:{number}: {line}" for name, number, line in _texts() if _ABSOLUTE.search(line)]
    assert not found


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/" + "home/anna/src", True),
        ("see /" + "root/x", True),
        ("C:" + "\\Users\\anna", True),
        ("https://example.org/" + "home/anna", False),
        ("/v1/api/work/x", False),
        ("/usr/bin/env", False),
    ],
)
def test_absolute_paths_are_recognized(line: str, told: bool) -> None:
    assert bool(_ABSOLUTE.search(line)) is told


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in _tracked():
        if path.suffix != ".md" or path.is_symlink():
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_no_conftest_at_the_root() -> None:
    """It would put the root on ``sys.path`` and make the bare names importable in tests."""
    assert not (ROOT / "conftest.py").exists()
