"""Print what pyproject.toml asks for, one requirement a line: the project's dependencies and its development group."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
for requirement in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]:
    print(requirement)
