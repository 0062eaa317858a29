"""A slice of the campaign (``make campaign``): changed files of every kind give a value or one line, and no warning."""

import logging
import random
import shutil
from pathlib import Path

import pytest
from campaign.mutants import judge
from campaign.readers import FORMATS, mutate
from hypothesis import given, settings, strategies as st

EXAMPLES = {False: 12, True: 2}
"""Mutants of formats that are read quickly, and of others."""


@pytest.mark.parametrize("name", FORMATS)
def test_changed_files_give_a_value_or_one_line(name: str, tmp_path: Path) -> None:
    format = FORMATS[name]
    (tmp_path / "whole").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"not yours")
    format.make(tmp_path / "whole")
    assert judge(tmp_path / "whole", format) == ("value", "")

    @settings(max_examples=EXAMPLES[format.slow], derandomize=True, database=None)
    @given(number=st.integers(0, 2**32))
    def attack(number: int) -> None:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder, symlinks=True)
        what = mutate(folder, format, random.Random(number))
        outcome, told = judge(folder, format)
        assert outcome in ("value", "refused"), (what, outcome, told)

    logging.disable(logging.WARNING)
    try:
        attack()
    finally:
        logging.disable(logging.NOTSET)
    assert [path.read_bytes() for path in (tmp_path / "outside").iterdir()] == [b"not yours"]
    assert {path.name for path in tmp_path.iterdir()} <= {"whole", "outside", "copy"}
