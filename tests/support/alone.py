"""Programs run where only some packages can be imported, as in an environment that lacks others."""

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[2]

_REFUSE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {allowed!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def run_alone(
    program: str, *arguments: object, packages: Collection[str]
) -> subprocess.CompletedProcess[str]:
    """Runs a program that finds the standard library, Sotto and these packages alone."""
    allowed = {"codec", "infer", *packages}
    return subprocess.run(
        [sys.executable, "-c", _REFUSE.format(allowed=allowed) + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
