"""The command line: ``nfldm3d COMMAND``, see ``nfldm3d --help``; every option is a field of a dataclass.

Exit codes: 0 done, 2 wrong usage, 3 bad data, 130 interrupted, 141 output closed by its reader, 143 terminated.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from itertools import dropwhile, takewhile
from types import FrameType
from typing import Annotated

import torch
import tyro

from nfldm3d.cli.assemble import Assemble
from nfldm3d.cli.capture import Capture
from nfldm3d.cli.dream import Dream
from nfldm3d.cli.encode import Encode
from nfldm3d.cli.evaluate import Evaluate
from nfldm3d.cli.export import Export
from nfldm3d.cli.fit import Fit
from nfldm3d.cli.generate import Edit, Generate, Grow
from nfldm3d.cli.info import Info
from nfldm3d.cli.refine import Refine
from nfldm3d.cli.render import Render
from nfldm3d.cli.train import Train
from nfldm3d.cli.view import View
from nfldm3d.files import DataFormatError
from nfldm3d.messages import to_one_line

__all__ = ["main"]

Command = (
    Annotated[Capture, tyro.conf.subcommand("capture")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[View, tyro.conf.subcommand("view")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Encode, tyro.conf.subcommand("encode")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Assemble, tyro.conf.subcommand("assemble")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Grow, tyro.conf.subcommand("grow")]
    | Annotated[Refine, tyro.conf.subcommand("refine")]
    | Annotated[Dream, tyro.conf.subcommand("dream")]
)
DESCRIPTION = "Voxel neural fields: record, fit, learn, render and export 3-D scenes. Add --debug for tracebacks."
USAGE, BAD_DATA, INTERRUPTED, OUTPUT_CLOSED, TERMINATED = 2, 3, 130, 141, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are one line on stderr, with ``--debug`` a traceback."""
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        _flush()
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # Python flushes once more when it ends
        return OUTPUT_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        _parse([argument for argument in arguments if argument != "--debug"]).run()
    except BrokenPipeError:
        raise
    except (ValueError, ImportError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        if debug:
            raise
        _say(_describe(error))
        return BAD_DATA if isinstance(error, DataFormatError) else USAGE
    except KeyboardInterrupt:
        if debug:
            raise
        _say("interrupted")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _parse(arguments: list[str]) -> Command:
    """The command with its options; SystemExit for ``--help``, and with one line for options that tyro refuses."""
    names = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    page = io.StringIO()
    try:
        with redirect_stderr(page):
            return tyro.cli(Command, prog="nfldm3d", args=arguments, description=DESCRIPTION, config=names)  # type: ignore[arg-type]
    except SystemExit as stop:
        if stop.code:
            _say(_shorten(page.getvalue()))
        _flush()
        raise


def _shorten(page: str) -> str:
    """What tyro's page about an error says between its title and the next rule."""
    lines = [line.strip(" │") for line in page.splitlines()]
    inner = dropwhile(_is_rule, [line for line in lines if line][1:])
    words = " ".join(takewhile(lambda line: not _is_rule(line), inner)).split()
    return f"{' '.join(words)} (see --help)"


def _is_rule(line: str) -> bool:
    return not line.strip("-─╭╮╰╯")


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def _say(text: str) -> None:
    if sys.stderr is not None:  # closed by whoever started us
        sys.stderr.write(f"nfldm3d: {to_one_line(text)}\n")


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
