"""The command line: ``nfldm3d COMMAND``, see ``nfldm3d --help``; every option is a field of a dataclass.

Exit codes: 0 done, 2 wrong usage, 3 bad data, 130 interrupted, 143 terminated.
"""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import tyro

from nfldm3d.cli.assemble import Assemble
from nfldm3d.cli.capture import Capture
from nfldm3d.cli.encode import Encode
from nfldm3d.cli.evaluate import Evaluate
from nfldm3d.cli.export import Export
from nfldm3d.cli.fit import Fit
from nfldm3d.cli.generate import Edit, Generate, Grow
from nfldm3d.cli.info import Info
from nfldm3d.cli.render import Render
from nfldm3d.cli.train import Train
from nfldm3d.files import DataFormatError

__all__ = ["main"]

Command = (
    Annotated[Capture, tyro.conf.subcommand("capture")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Encode, tyro.conf.subcommand("encode")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Assemble, tyro.conf.subcommand("assemble")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Grow, tyro.conf.subcommand("grow")]
)
DESCRIPTION = "Voxel neural fields: record, fit, learn, render and export 3-D scenes. Add --debug for tracebacks."
USAGE, BAD_DATA, INTERRUPTED, TERMINATED = 2, 3, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are one line on stderr, with ``--debug`` a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    command = _parse([argument for argument in arguments if argument != "--debug"])
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        command.run()
    except (ValueError, ImportError, OSError, MemoryError) as error:
        if debug:
            raise
        sys.stderr.write(f"nfldm3d: {' '.join(str(error).split())}\n")
        return BAD_DATA if isinstance(error, DataFormatError) else USAGE
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("nfldm3d: interrupted\n")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _parse(arguments: list[str]) -> Command:
    names = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    return tyro.cli(Command, prog="nfldm3d", args=arguments, description=DESCRIPTION, config=names)  # type: ignore[arg-type]


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
