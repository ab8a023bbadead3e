"""What a reader sees is a promise: files that repeat the code are held against it."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_env_example_is_what_the_tables_say() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == generate["env_example"]()


def test_every_make_command_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    assert {"run", "demo", "test"} <= told
    assert told <= targets


def test_the_readme_shows_run_demo_and_test_on_its_first_screen() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20])
    assert all(f"make {name}" in first_screen for name in ("run", "demo", "test"))


def test_relative_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_requirements_are_pinned() -> None:
    for name in ("requirements.txt", "requirements-agent.txt", "requirements-dev.txt", "constraints.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            wanted = line.partition("#")[0].strip()
            if wanted and not wanted.startswith("-"):
                assert re.fullmatch(r"[\w.-]+==[\w.]+(; python_version .*)?", wanted), f"{name}: {line}"


def test_every_package_of_the_product_is_shipped() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("vm_health", "vm_alerts", "vm_agent", "vm_watchdog")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(packages) == found
