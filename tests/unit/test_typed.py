"""A program of somebody else's is checked against our types, as mypy finds them once installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def mypy(*programs: Path) -> str:
    """What mypy says of the programs, run where nothing of the clone is configured or found."""
    folder = programs[0].parent
    words = ["--strict", "--no-error-summary", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, *map(str, programs)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout


def test_the_programs_of_the_readme_and_the_example_are_fully_typed(tmp_path: Path) -> None:
    """Without the marker py.typed (PEP 561) each of them is refused: its imports are untyped."""
    programs = [tmp_path / "worker.py"]
    programs[0].write_text((ROOT / "examples/worker.py").read_text())
    for number, text in enumerate(_PYTHON.findall((ROOT / "README.md").read_text())):
        programs.append(tmp_path / f"readme_{number}.py")
        programs[-1].write_text(text)
    assert len(programs) > 2, "README.md holds no program any more"
    assert mypy(*programs) == ""


def test_a_wrong_call_is_found(tmp_path: Path) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(
        "from oomwatch.client import Client\nClient().finalize('job-17', exit_code='137')\n"
    )
    assert 'Argument "exit_code" to "finalize" of "Client"' in mypy(program)
