"""How the VMs' helper processes are started: with few imports, whatever the environment says."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of a module of this repository."""
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from {module} import main; sys.exit(main())"
    return [sys.executable, "-I", "-S", "-c", code, *arguments]
