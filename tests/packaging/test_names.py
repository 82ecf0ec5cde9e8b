"""``feeds``, ``brokers`` and ``strategies`` are importable below ``bt_ibkr`` only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

BARE = ("feeds", "brokers", "strategies")
MAPPED = tuple(f"bt_ibkr.{name}" for name in BARE)

#: Looks for the bare names and imports the mapped ones, as a program does that was installed into ``place``.
_PROBE = """
import importlib, importlib.util, json, site, sys
place, others, bare, mapped = json.loads(sys.argv[1])
if place:
    site.addsitedir(place)
    sys.path += others
found = [name for name in bare if importlib.util.find_spec(name) is not None]
files = {name: importlib.import_module(name).__file__ for name in ("bt_ibkr", *mapped)}
print(json.dumps([found, files]))
"""


def _probe(place: Path | None, cwd: Path) -> tuple[list[str], dict[str, str]]:
    """The bare names that can be imported, and the files of the mapped ones.

    Args:
        place: A folder like site-packages. This interpreter's own then only lends the dependencies: it comes
            later on the path, and no editable install in it takes effect. ``None`` looks at this interpreter as
            it is.
        cwd: Where to do it.
    """
    lent = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    argument = json.dumps([str(place) if place else "", lent, BARE, MAPPED])
    flags = ["-I", "-S"] if place else ["-I"]
    done = subprocess.run(
        [sys.executable, *flags, "-c", _PROBE, argument],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, files = json.loads(done.stdout)
    return found, files


def test_wheel_gives_no_bare_name(installed_wheel: Path, tmp_path: Path) -> None:
    found, files = _probe(installed_wheel, tmp_path)
    assert found == []
    for name in MAPPED:
        expected = installed_wheel.joinpath(*name.split("."), "__init__.py")
        assert Path(files[name]).resolve() == expected.resolve()


def test_editable_install_gives_no_bare_name(
    installed_editable: Path, clean_copy: Path, tmp_path: Path
) -> None:
    found, files = _probe(installed_editable, tmp_path)
    assert found == []
    for bare, name in zip(BARE, MAPPED, strict=True):
        # Through the mapping or the link: both are the one file in the top folder.
        assert Path(files[name]).resolve() == (clean_copy / bare / "__init__.py").resolve()


def test_this_environment_gives_no_bare_name(tmp_path: Path) -> None:
    """However the package was installed here: the environment of the tests is a user's environment too."""
    listed = subprocess.run(
        [sys.executable, "-I", "-c", "import importlib.metadata as m; print(m.version('bt-ibkr'))"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("bt-ibkr is not installed in this environment")
    found, _ = _probe(None, tmp_path)
    assert found == []


@pytest.mark.parametrize("name", BARE)
def test_link_is_there_and_relative(name: str, repository: Path) -> None:
    link = repository / "bt_ibkr" / name
    if os.name == "nt" and not link.is_symlink():
        pytest.skip("this checkout was made without symbolic links")
    assert link.is_symlink()
    assert link.readlink().as_posix() == f"../{name}"
    assert link.resolve() == repository / name


def test_installs_beside_the_root_see_the_same_module(repository: Path) -> None:
    """From the repository's root, without any install, ``bt_ibkr.feeds`` is found through its link."""
    done = subprocess.run(
        [sys.executable, "-c", "import bt_ibkr.feeds as f; print(f.__file__)"],
        cwd=repository, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == repository / "feeds" / "__init__.py"
