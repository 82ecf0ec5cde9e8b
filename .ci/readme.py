"""Print the README's first shell block that holds a text, so that what is run is what is printed there.

Usage: ``python .ci/readme.py TEXT``
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def main(text: str) -> int:
    for block in re.findall(
        r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        if text in block:
            sys.stdout.write(block)
            return 0
    sys.stderr.write(f"README.md has no shell block with {text!r}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
