"""The examples of docs/authentication.md are Python that works."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "authentication.md"


def _examples() -> list[str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_every_example_compiles() -> None:
    examples = _examples()
    assert len(examples) == 3
    for example in examples:
        compile(example, str(DOCUMENT), "exec")


def test_settings_of_the_first_example() -> None:
    """Settings name places only: nothing is read before the log-on."""
    from bt_ibkr.config import SessionSettings
    from bt_ibkr.login import OAuth1Login

    inner = re.search(r"SessionSettings\(.*\n    \)", _examples()[0], re.DOTALL)
    assert inner is not None
    made = eval(inner[0], {"SessionSettings": SessionSettings, "OAuth1Login": OAuth1Login})
    assert isinstance(made, SessionSettings)
    assert isinstance(made.login, OAuth1Login)


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are those of POSIX")
def test_emulator_of_the_last_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "example.py"
    script.write_text(_examples()[-1].replace("EmulatorSettings(", "EmulatorSettings(port=0, "))
    runpy.run_path(str(script))
    assert "private_signature.pem" in capsys.readouterr().out
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").iterdir())
