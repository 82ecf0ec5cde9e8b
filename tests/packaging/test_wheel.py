"""The wheel holds the package, the whole package and nothing but the package."""

from __future__ import annotations

import configparser
import email
import zipfile
from pathlib import Path

import pytest

FOLDERS = {
    "bt_ibkr": "bt_ibkr",
    "feeds": "bt_ibkr/feeds",
    "brokers": "bt_ibkr/brokers",
    "strategies": "bt_ibkr/strategies",
}


def _expected(root: Path) -> set[str]:
    """Paths inside the wheel of every module of the tree, and the typing marker."""
    found = {"bt_ibkr/py.typed"}
    for folder, inside in FOLDERS.items():
        for path in (root / folder).rglob("*.py"):
            relative = path.relative_to(root / folder)
            if folder == "bt_ibkr" and relative.parts[0] in FOLDERS:
                continue
            found.add(f"{inside}/{relative.as_posix()}")
    return found


def _held(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.parametrize("built", ["wheel", "wheel_of_sdist"])
def test_wheel_holds_every_module_and_nothing_else(
    built: str, clean_copy: Path, request: pytest.FixtureRequest
) -> None:
    held, expected = _held(request.getfixturevalue(built)), _expected(clean_copy)
    assert not expected - held, "missing in the wheel"
    assert not held - expected, "in the wheel, but no module of the package"


def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    assert {name.split("/")[0] for name in _held(wheel)} == {"bt_ibkr"}


def test_packages_of_setup_cfg_are_those_of_the_tree(repository: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(repository / "setup.cfg", encoding="utf-8")
    listed = settings["options"]["packages"].split()
    in_tree = {
        path.rpartition("/")[0].replace("/", ".")
        for path in _expected(repository)
        if path.endswith("/__init__.py")
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == in_tree


def test_every_folder_with_modules_is_a_package(repository: Path) -> None:
    modules = {path for path in _expected(repository) if path.endswith(".py")}
    folders = {path.rpartition("/")[0] for path in modules}
    assert not [folder for folder in folders if f"{folder}/__init__.py" not in modules]


def test_metadata_says_what_setup_cfg_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = next(name.split("/")[0] for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
        names = archive.namelist()
    assert metadata["Name"] == "bt-ibkr"
    assert metadata["License-Expression"] == "GPL-3.0-or-later"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) >= {"test", "notebook"}
    assert "bt-ibkr = bt_ibkr.cli.main:main" in entry_points
    assert any(name.endswith("/LICENSE") for name in names)
