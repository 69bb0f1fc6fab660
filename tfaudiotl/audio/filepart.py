"""A stretch of a file, with other bytes in front of it, as a file of its own for libsndfile."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Which bytes to read as one sound file.

    Attributes:
        start: First byte of the file that is read.
        stop: One past the last.
        head: What is read before them, such as a header that was put right.
    """

    start: int
    stop: int
    head: bytes = b""


class FilePart(io.RawIOBase):
    """A ``Part`` of a file, open for reading.

    Args:
        name: The file's.
        part: The bytes wanted.
    """

    def __init__(self, name: str, part: Part):
        self._part, self._place = part, 0
        self._length = len(part.head) + part.stop - part.start
        self._file = open(name, "rb")  # noqa: SIM115 - closed with this object

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        wanted = max(0, min(len(view), self._length - self._place))
        head = self._part.head
        data = head[self._place : self._place + wanted]
        if len(data) < wanted:
            self._file.seek(self._part.start + max(0, self._place - len(head)))
            data += self._file.read(wanted - len(data))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
