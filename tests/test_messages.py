"""What strangers' files make programs say: one short line that steers no terminal."""

import copy

from hypothesis import given, strategies as st

from nfldm3d.cli import _say
from nfldm3d.files import DataFormatError
from nfldm3d.messages import LONGEST, to_one_line


def test_lines_are_joined_and_plain_text_stays() -> None:
    text = "größe  of a.png: is 3; write '4'"
    assert to_one_line(text) == text
    assert to_one_line("first\n   second\r\nthird\n") == "first second third"


def test_controls_are_shown_and_not_obeyed() -> None:
    assert to_one_line("a\x1b[2Jb\tc\u202ed\ud800\x9b") == "a\\x1b[2Jb\\tc\\u202ed\\ud800\\x9b"


def test_long_messages_keep_the_file_and_the_remedy() -> None:
    shown = str(DataFormatError("some/file.json", f"holds {'x' * 50_000}\x1b[0m; write it again"))
    assert len(shown) == LONGEST and shown.startswith("some/file.json: holds xxx")
    assert shown.endswith("; write it again")
    assert str(copy.copy(DataFormatError("a\nb", "is empty"))) == "a b: is empty"


@given(st.text(max_size=2000))
def test_any_message_is_one_short_printable_line(text: str) -> None:
    line = to_one_line(text)
    assert len(line) <= LONGEST and line.isprintable()


def test_the_command_line_says_no_more(capsys) -> None:
    _say("\x1b]0;title\x07" + "word\n" * 1000)
    said = capsys.readouterr().err
    assert said.startswith("nfldm3d: \\x1b]0;title\\x07word word") and said.count("\n") == 1 and len(said) < 520


def test_blanks_take_no_time() -> None:
    assert to_one_line("../" + " " * 300_000 + "x").startswith("../ ") and to_one_line("a \r\n\t b\n\nc") == "a b c"
