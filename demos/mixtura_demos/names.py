"""Names of uploaded files: read from the form while it streams by; hostile ones are refused.

What passes is kept by gradio in a folder of its own that the content names; programs of ours draw names themselves
(`shared.work.fresh`).
"""

from __future__ import annotations

import re

LONGEST = 150
HOSTILE = re.compile(r"[/\\\x00-\x1f\x7f<>|;`$*?\"]|^[-.~]|^\s*$|%\d*d")


class HostileName(Exception):
    """A file's name looks like a path, a command or a pattern."""


def check(name: str) -> None:
    """Raise HostileName for a name that no picture or video needs."""
    if HOSTILE.search(name) or len(name.encode()) > LONGEST:
        raise HostileName(
            "The file's name looks like a path, a command or a pattern, or is too long; "
            "rename the file to letters, digits, '-' and '_' and upload it again."
        )


class NameReader:
    """Finds the names of the files in a multipart form of which it is given piece by piece."""

    def __init__(self, content_type: bytes) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        self._field = self._value = b""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        self._parser = None
        if kind == b"multipart/form-data" and boundary:
            self._parser = MultipartParser(
                boundary,
                callbacks={
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_end,
                },
            )

    def read(self, piece: bytes) -> None:
        """The next piece of the form. Raises HostileName."""
        from python_multipart.exceptions import FormParserError

        if self._parser is None or not piece:
            return
        try:
            self._parser.write(piece)
        except FormParserError:
            self._parser = None  # gradio's own parser tells what is wrong with the form

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_end(self) -> None:
        field, value = self._field, self._value
        self._field = self._value = b""
        if field.lower() != b"content-disposition":
            return
        if b"filename*" in value.lower():
            raise HostileName("Files' names must be sent plainly.")
        # a backslash is part of the name here, where browsers send quotes as %22
        found = re.search(rb'filename="(.*)"', value, re.DOTALL) or re.search(rb"filename=([^;]*)", value)
        if found:
            check(found[1].decode("utf-8", "replace"))
