"""All commands, and how what a user writes becomes one of them."""

import io
from contextlib import redirect_stderr
from itertools import dropwhile, takewhile
from typing import Annotated

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
from nfldm3d.cli.views import Views

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
    | Annotated[Views, tyro.conf.subcommand("views")]
)
DESCRIPTION = "Voxel neural fields: record, fit, learn, render and export 3-D scenes. Add --debug for tracebacks."


def parse(arguments: list[str]) -> Command:
    """The command with its options.

    Raises:
        SystemExit: after ``--help``, or with the reason why tyro refuses the options.
    """
    names = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    page = io.StringIO()
    try:
        with redirect_stderr(page):
            return tyro.cli(Command, prog="nfldm3d", args=arguments, description=DESCRIPTION, config=names)  # type: ignore[arg-type]
    except SystemExit as stop:
        if stop.code:
            raise SystemExit(_shorten(page.getvalue())) from None
        raise


def _shorten(page: str) -> str:
    """What tyro's page about an error says between its title and the next rule."""
    lines = [line.strip(" │") for line in page.splitlines()]
    inner = dropwhile(_is_rule, [line for line in lines if line][1:])
    words = " ".join(takewhile(lambda line: not _is_rule(line), inner)).split()
    return f"{' '.join(words)} (see --help)"


def _is_rule(line: str) -> bool:
    return not line.strip("-─╭╮╰╯")
