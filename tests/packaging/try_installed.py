"""Tries the installed package as its README says, in a folder of its own: for the session `package`, not for pytest.

    python try_installed.py README.md

Needs the extras `openai`, `cli` and `rehearsal`, and must not find the package in a source tree.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import trio_sched

PACKAGE = Path(trio_sched.__file__).parent
COMMAND = str(Path(sys.executable).parent / "trio-sched")
DATA_FILES = ("py.typed", "_observe/report/page.html", "_observe/report/page.css", "_observe/report/page.js")


def main(readme: Path) -> None:
    """Raises if something is missing or does not work."""
    assert "site-packages" in PACKAGE.parts, f"{PACKAGE} is no installed package"
    missing = [name for name in DATA_FILES if not (PACKAGE / name).is_file()]
    assert not missing, f"the wheel lacks {missing}"
    example = next(block for block in blocks(readme.read_text(encoding="utf-8")) if "ts.run(" in block)
    Path("questions.py").write_text(example, encoding="utf-8")
    Path("topics.jsonl").write_text('{"topic": "structured concurrency"}\n', encoding="utf-8")
    say(COMMAND, "--help")
    serving = [COMMAND, "rehearse", "--port", "0"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        os.environ["OPENAI_BASE_URL"] = provider.stdout.readline().strip()
        os.environ["OPENAI_API_KEY"] = "rehearsal"
        os.environ["NO_PROXY"] = "127.0.0.1"
        try:
            say(sys.executable, "questions.py")
            say(COMMAND, "plan", "questions:pipeline", "--rows", "topics.jsonl")
            say(COMMAND, "run", "questions:pipeline", "--rows", "topics.jsonl", "--output", "out/topics")
            say(COMMAND, "why", "out/topics")
            say(COMMAND, "report", "out/topics")
        finally:
            provider.send_signal(signal.SIGINT)
    row = json.loads(Path("out/topics/data/part-00000.jsonl").read_text(encoding="utf-8"))
    assert row["topic"] == "structured concurrency", row
    assert Path("out/topics/report.html").stat().st_size > 0


def blocks(text: str) -> list[str]:
    """The Python blocks of a Markdown page."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def say(*command: str) -> None:
    """Run a command and show it."""
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
