"""Prints what pyproject.toml asks for, dev extras included, a line each."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
sys.stdout.write(
    "\n".join(project["dependencies"] + project["optional-dependencies"]["dev"]) + "\n"
)
