"""Modules that have moved still answer to their old names, and say what the new ones are."""

import importlib
import sys

import pytest

from nfldm3d._moved import MOVED, renamed_argument


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_gives_the_module_and_warns(old: str, new: str) -> None:
    module = importlib.import_module(new)
    before = module.__spec__
    with pytest.warns(DeprecationWarning, match=new):
        assert importlib.import_module(old) is module
    del sys.modules[old]
    assert module.__spec__ is before and module.__name__ == new


def test_names_come_from_old_modules() -> None:
    with pytest.warns(DeprecationWarning, match="nfldm3d.fields"):
        from nfldm3d.field import VoxelField  # pyright: ignore[reportMissingImports]
    del sys.modules["nfldm3d.field"]
    from nfldm3d.fields import VoxelField as new

    assert VoxelField is new


def test_arguments_are_taken_under_old_names() -> None:
    @renamed_argument("old", "new")
    def double(new: int) -> int:
        return 2 * new

    assert double(1) == double(new=1) == 2
    with pytest.warns(DeprecationWarning, match="the argument old of double is now new"):
        assert double(old=1) == 2
