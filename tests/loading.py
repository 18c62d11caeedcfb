"""Loads the roles' programs, whose names have no ending, as modules."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


def load(program: Path) -> ModuleType:
    """Return a program as a module of its own, fresh at each call."""
    name = program.name.replace("-", "_")
    loader = SourceFileLoader(name, str(program))
    module = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(module)
    return module
