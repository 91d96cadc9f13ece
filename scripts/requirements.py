"""Print what pyproject.toml asks for, one requirement a line: the project's dependencies, its extras and its development group."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
extras = [requirement for extra in project["project"]["optional-dependencies"].values() for requirement in extra]
for requirement in [*project["project"]["dependencies"], *extras, *project["dependency-groups"]["dev"]]:
    print(requirement)
