"""XML that strangers wrote, without entities of its own: they may grow without end or name other files."""

from pathlib import Path
from xml.etree import ElementTree

from nfldm3d.files import DataFormatError, read_content


def read_xml(path: Path, most: int, remedy: str) -> ElementTree.Element:
    """The root of a file.

    Args:
        most: bytes that such a file can have.
        remedy: what to do about a file that cannot be read, for the message.

    Raises:
        DataFormatError: it cannot be read, is too large, is no XML or declares entities.
    """
    content = read_content(path, most, remedy)
    if b"<!ENTITY" in content or b"\0" in content:  # the latter stands in UTF-16, which hides the former
        raise DataFormatError(path, f"declares entities, which may hide a bomb, or is no UTF-8; {remedy}")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also of encodings
        raise DataFormatError(path, f"is no XML ({error}); {remedy}") from error
