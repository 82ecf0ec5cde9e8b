"""A clean copy of the sources, and what is built from it, once per run."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest
from build import ProjectBuilder
from build.env import DefaultIsolatedEnv

ROOT = Path(__file__).resolve().parents[2]
#: What a build needs; everything else in a checkout must not reach a wheel.
SOURCES = (
    "setup.cfg", "pyproject.toml", "README.md", "LICENSE",
    "bt_ibkr", "feeds", "brokers", "strategies", "tests", "notebooks", "benchmarks", "docs",
)  # fmt: skip
Kind = Literal["wheel", "editable", "sdist"]
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "*.pyc")


def _quiet(
    cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
) -> None:
    done = subprocess.run(
        cmd, cwd=cwd, env=_environment(extra_environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(cmd)}\n{done.stdout}\n{done.stderr}"


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(extra or {})}


def _build(source: Path, kind: Kind, out: Path) -> Path:
    """Build ``wheel``, ``editable`` or ``sdist``: with the setuptools at hand if it is new enough, else isolated."""
    with warnings.catch_warnings():
        # setuptools tells every editable install to be careful with folders of the package's name.
        warnings.filterwarnings("ignore", message="[\\s\\S]*Editable installation")
        return _build_strictly(source, kind, out)


def _build_strictly(source: Path, kind: Kind, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    try:
        major = int(importlib.metadata.version("setuptools").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        major = 0
    # setuptools reads license_expression since 77; see pyproject.toml.
    if major >= 77:
        return Path(ProjectBuilder(source, runner=_quiet).build(kind, out))
    with DefaultIsolatedEnv() as environment:
        builder = ProjectBuilder.from_isolated_env(environment, source, runner=_quiet)
        environment.install(builder.build_system_requires)
        environment.install(builder.get_requires_for_build(kind))
        return Path(builder.build(kind, out))


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sources") / "bt-ibkr"
    target.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, symlinks=True, ignore=_LEFT_OUT)
        elif source.is_file():
            shutil.copy2(source, target / name)
    return target


@pytest.fixture(scope="session")
def wheel(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built straight from the tree."""
    return _build(clean_copy, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel_of_sdist(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the source distribution, as a registry's user may get it."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = _build(clean_copy, "sdist", folder / "out")
    shutil.unpack_archive(archive, folder, filter="data")
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    return _build(unpacked, "wheel", folder / "wheel")


@pytest.fixture(scope="session")
def installed_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages after an install of the wheel; it is pure Python, so unpacking is all there is."""
    return _unpack(wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def installed_editable(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after an editable install."""
    folder = tmp_path_factory.mktemp("editable")
    return _unpack(_build(clean_copy, "editable", folder / "out"), folder / "site")


def _unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
