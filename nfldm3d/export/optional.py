"""Packages that only exporting needs."""

from importlib import import_module
from types import ModuleType


def import_optional(name: str) -> ModuleType:
    """A module of the ``export`` extra; raises one ImportError that names the extra if it cannot be had."""
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"this export needs the package {name.split('.')[0]} ({error}): pip install 'nfldm3d[export]'"
        ) from error
