"""XML that strangers wrote, without document types: their entities may grow without end or name other files."""

from pathlib import Path
from xml.etree import ElementTree

from nfldm3d.files import DataFormatError, read_content


def read_xml(path: Path, most: int, remedy: str) -> ElementTree.Element:
    """The root of a file.

    Args:
        most: bytes that such a file can have.
        remedy: what to do about a file that cannot be read, for the message.

    Raises:
        DataFormatError: it cannot be read, is too large, is no XML or declares a document type.
    """
    content = read_content(path, most, remedy)
    if any(
        sign in content for sign in (b"<!ENTITY", b"<!DOCTYPE", b"\0")
    ):  # the last stands in UTF-16, which hides them
        raise DataFormatError(path, f"declares a document type, which may hide a bomb; {remedy}")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also of encodings
        raise DataFormatError(path, f"is no XML ({error}); {remedy}") from error
