"""``nfldm3d capture emoji``: captioned pictures for text priors."""

import json
from dataclasses import dataclass
from pathlib import Path

from nfldm3d.cli.values import require_at_least
from nfldm3d.files import check_output


@dataclass(frozen=True)
class CaptureEmoji:
    """Emoji of animals, food, vehicles and things as captioned pictures without background, from two npm packages:
    npm pack @lobehub/fluent-emoji-3d emojibase-data."""

    pictures: Path
    """Unpacked package fluent-emoji-3d."""
    names: Path
    """Unpacked package emojibase-data."""
    out: Path
    """Folder for the pictures and the list of their captions."""
    size: int = 64
    """Width and height of the pictures in pixels."""

    def run(self) -> None:
        """Scales and saves."""
        from nfldm3d.recording.emoji import record_emoji

        check_output(self.out, folder=True)
        require_at_least(self, size=8)
        print(json.dumps({"pictures": record_emoji(self.out, self.pictures, self.names, size=self.size)}))  # noqa: T201
