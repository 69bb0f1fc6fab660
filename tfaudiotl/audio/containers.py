"""What a container of sound says about its own size: what is missing, what is wrong, what else follows it.

Recorders that lose their battery leave headers without a size; programs that write to a pipe cannot go back to fill it
in; and files are joined end to end (``cat a.ogg b.ogg > both.ogg``), of which libsndfile reads the first alone.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from tfaudiotl.errors import AudioError

UNKNOWN_FRAMES = 1 << 48  # libsndfile reports 2**63 - 1 for a stream whose header gives no length
APPLE_DOUBLE = b"\x00\x05\x16\x07"  # RFC 1740, section 4: how "._name" begins, beside a file copied from a Mac
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes: the largest page (RFC 3533, section 6)
_OGG_FIRST = re.compile(rb"OggS\x00[\x02\x06]")  # the first page of a stream
_FLAC_FIRST = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the marker and the header of STREAMINFO (RFC 9639)
_STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe declare 2**31 or 2**32 bytes, less a header
_SMALL_HEADER = 128  # bytes
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
# Tags and chunks that programs put behind the sound, which may have been cut short.
_NO_SOUND = re.compile(
    rb"\0?(TAG|ID3|id3 |APETAGEX|LYRICS|LIST|bext|cue |smpl|fact|PEAK|iXML|JUNK|junk|PAD |acid|inst|cart|_PMX|NAME|ANNO"
    rb"|MARK|INST|COMT)"
)
_WAVE_OR_AIFF = re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE|FORM....AIF[FC]", re.DOTALL)


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


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        parts: The sounds in it, end to end; none: it is one file, right as it is.
        note: What its header says wrongly, in words, or "".
    """

    parts: tuple[Part, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class _Sized:
    """A header that declares how many bytes of sound follow it.

    Attributes:
        at: The first byte of the sound.
        declared: Bytes of sound by the header; None where it says that it does not know.
        fields: Where sizes stand in the header: (place, format, what is added to the bytes of sound).
        chunks: How the chunks behind the sound are built, or None where there are none.
    """

    at: int
    declared: int | None
    fields: tuple[tuple[int, str, int], ...]
    chunks: _Chunks | None = None


@dataclass(frozen=True)
class _Chunks:
    """How the chunks of a container are built: a name and a size, then the content.

    Attributes:
        base: The first byte of the container, from which padding is counted.
        form: The name and the size, for ``struct``.
        own: Bytes of the name and the size that the size counts too.
        align: What chunks are padded to, bytes.
    """

    base: int
    form: str
    own: int = 0
    align: int = 2

    def aligned(self, place: int) -> int:
        """The next place at which a chunk may begin."""
        return place + (self.base - place) % self.align

    def each(self, data: mmap.mmap, place: int) -> Iterator[tuple[bytes, int, int]]:
        """(name, first byte after the head, size of what follows) of chunk after chunk."""
        width = struct.calcsize(self.form)
        while place + width <= len(data):
            name, size = struct.unpack_from(self.form, data, place)
            yield name[:4], place + width, size - self.own
            if size < self.own:
                return
            place = self.aligned(place + width - self.own + size)

    def end(self, data: mmap.mmap, place: int) -> int | None:
        """Where the chunk at a place ends, or None if there is none or it is not whole."""
        for name, at, size in self.each(data, place):
            if size < 0 or at + size > len(data) or not all(32 <= byte < 127 for byte in name):
                return None
            return min(self.aligned(at + size), len(data))
        return None


def layout(name: str, status: os.stat_result) -> Layout:
    """Looks at how a file is made up.

    Args:
        name: The file.
        status: Its size and time; a changed file is looked at again.

    Returns:
        What to read of it; nothing special for formats that are not looked at here.

    Raises:
        AudioError: The end of the sound is missing.
    """
    return _layout(name, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)  # every span and every epoch asks again
def _layout(name: str, size: int, modified: int) -> Layout:
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == b"OggS":
            return _joined(name, data, _ogg_starts(data), _check_ogg)
        if data[:4] == b"fLaC":
            return _joined(name, data, [match.start() for match in _FLAC_FIRST.finditer(data)] or [0])
        return _sized_layout(name, data)


def _joined(
    name: str, data: mmap.mmap, starts: list[int], check: Callable[[str, mmap.mmap, Part], None] | None = None
) -> Layout:
    parts = tuple(Part(start, stop) for start, stop in zip(starts, [*starts[1:], len(data)], strict=True))
    for part in parts:
        if check:
            check(name, data, part)
    return Layout(parts if len(parts) > 1 else ())


def _ogg_starts(data: mmap.mmap) -> list[int]:
    """Where the links of a chain begin: streams that are read side by side begin page upon page."""
    starts, beside = [], -1
    for match in _OGG_FIRST.finditer(data):
        place = match.start()
        if place != beside:
            starts.append(place)
        beside = place + _ogg_page_bytes(data, place)
    return starts or [0]


def _ogg_page_bytes(data: mmap.mmap, place: int) -> int:
    """Length of an Ogg page by its header (RFC 3533, section 6), which may lie beyond the end of the file."""
    header = data[place : place + 27]
    if len(header) < 27:
        return 27
    segments = data[place + 27 : place + 27 + header[26]]
    return 27 + header[26] + sum(segments) + (header[26] - len(segments))


def _check_ogg(name: str, data: mmap.mmap, part: Part) -> None:
    """Ogg has no header with its length, but each page has its own."""
    page = data.rfind(b"OggS", max(part.start, part.stop - _OGG_PAGE), part.stop)
    # No page: something else follows the sound, a tag for example.
    if page >= 0 and page + _ogg_page_bytes(data, page) > part.stop:
        raise AudioError(name, "truncated: the file ends in the middle of an Ogg page")


def last_ogg_page(name: str, part: Part) -> int:
    """Frame at which the last Ogg page begins (where the page before it ends), or 0.

    libsndfile places a seek into the last Vorbis page too late by as many frames as the page was
    cut short (its issue 885), so reading has to come from before it.
    """
    with open(name, "rb") as file:
        begin = max(part.start, part.stop - 2 * _OGG_PAGE)
        file.seek(begin)
        tail = file.read(part.stop - begin)
    before = tail.rfind(b"OggS", 0, max(0, tail.rfind(b"OggS")))
    position: int = struct.unpack_from("<q", tail, before + 6)[0] if before >= 0 else 0
    return max(0, position)  # -1 where no packet ends on the page


# Formats whose headers declare the bytes of sound


def _sized_layout(name: str, data: mmap.mmap) -> Layout:
    parts: list[Part] = []
    notes: list[str] = []
    start: int | None = 0
    while start is not None:
        header = _read_header(data, start)
        if header is None:
            break
        part, note, start = _sized_part(name, data, start, header)
        parts.append(part)
        notes += [note] if note else []
    right = len(parts) <= 1 and not any(part.head for part in parts)
    return Layout(() if right else tuple(parts), "; ".join(notes))


def _sized_part(name: str, data: mmap.mmap, start: int, header: _Sized) -> tuple[Part, str, int | None]:
    """One file: its bytes, with a header that is right; what was wrong; where a joined one begins."""
    held = len(data) - header.at
    declared = header.declared
    if declared is None or declared > held + 1:  # one byte less is the padding of an odd chunk
        streamed = declared is None or declared >= _STREAMED_BYTES
        if declared is not None and not streamed and not _counts_header(declared - held, header.at - start):
            raise AudioError(name, f"truncated: holds {held} of the {declared} bytes of sound its header declares")
        note = "" if declared is None else f"its header declares {declared} bytes of sound, it holds {held}"
        return _put_right(data, start, header, len(data)), note, None
    end = min(header.at + declared, len(data))
    rest = _after_chunks(data, end, header.chunks)
    if rest < len(data) and _is_header(data, rest):
        part = Part(start, rest)
        return part, "", rest
    undeclared = rest == end and len(data) - rest > 1 and not _NO_SOUND.match(data, rest)
    if undeclared and _any(data, rest):
        if _WAVE_OR_AIFF.search(data, header.at):
            raise AudioError(name, "holds sounds end to end, of which the first is truncated")
        note = f"its header declares {declared} bytes of sound, {held} follow"
        return _put_right(data, start, header, len(data)), note, None
    return Part(start, len(data)), "", None


def _counts_header(missing: int, header: int) -> bool:
    """Whether a size is too large since it counts the header too, in whole or in part."""
    return missing <= _SMALL_HEADER or header - 12 <= missing <= header


def _put_right(data: mmap.mmap, start: int, header: _Sized, stop: int) -> Part:
    head = bytearray(data[start : header.at])
    held = stop - header.at
    for place, form, more in header.fields:
        limit = 0x7FFF_FFFF_FFFF_FFFF if form[-1] in "qQ" else 0xFFFF_FFFF
        struct.pack_into(form, head, place - start, min(held + more, limit))
    return Part(header.at, stop, bytes(head))


def _any(data: mmap.mmap, place: int) -> bool:
    """Whether anything but zeros follows."""
    return re.compile(rb"[^\0]").search(data, place) is not None


def _after_chunks(data: mmap.mmap, place: int, chunks: _Chunks | None) -> int:
    """Where the chunks behind the sound end, if any are there."""
    if chunks is None:
        return place
    for begin in dict.fromkeys((chunks.aligned(place), place)):  # some programs leave the padding out
        here = begin
        while not _is_header(data, here) and (after := chunks.end(data, here)) is not None:
            here = after
        if here > begin or _is_header(data, here):
            return here
    return place


def _is_header(data: mmap.mmap, place: int) -> bool:
    magic, form = data[place : place + 4], data[place + 8 : place + 12]
    return (
        (magic in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE")
        or (magic == b"FORM" and form in (b"AIFF", b"AIFC"))
        or data[place : place + 16] == _W64_RIFF
        or magic in (b".snd", b"caff")
    )


def _read_header(data: mmap.mmap, start: int) -> _Sized | None:
    """The header at a place, of any of the formats known here, or None."""
    magic = data[start : start + 4]
    if not _is_header(data, start):
        return None
    if magic == b".snd":
        return _read_au(data, start)
    if magic == b"caff":
        return _read_caf(data, start)
    if magic == b"riff":
        return _read_w64(data, start)
    if magic == b"FORM":
        return _read_aiff(data, start)
    return _read_wave(data, start)


def _read_wave(data: mmap.mmap, start: int) -> _Sized | None:
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    chunks, where = _Chunks(start, f"{order}4sI"), None
    for name, at, size in chunks.each(data, start + 12):
        if name == b"ds64" and at + 24 <= len(data):
            where = at
        if name == b"data" and where is not None and size == 0xFFFF_FFFF:  # RF64: 64-bit sizes of file and sound
            fields = ((where, "<Q", at - start - 8), (where + 8, "<Q", 0))
            return _Sized(at, struct.unpack_from("<Q", data, where + 8)[0], fields, chunks)
        if name == b"data":
            fields = ((start + 4, f"{order}I", at - start - 8), (at - 4, f"{order}I", 0))
            return _Sized(at, size, fields, chunks)
    return None


def _read_w64(data: mmap.mmap, start: int) -> _Sized | None:
    chunks = _Chunks(start, "<16sQ", own=24, align=8)
    for name, at, size in chunks.each(data, start + 40):
        if name == b"data":
            return _Sized(at, max(0, size), ((start + 16, "<Q", at - start), (at - 8, "<Q", 24)), chunks)
    return None


def _read_aiff(data: mmap.mmap, start: int) -> _Sized | None:
    chunks = _Chunks(start, ">4sI")
    for name, at, size in chunks.each(data, start + 12):
        if name == b"SSND":  # its sound begins after two numbers of four bytes
            return _Sized(at + 8, max(0, size - 8), ((start + 4, ">I", at - start), (at - 4, ">I", 8)), chunks)
    return None


def _read_au(data: mmap.mmap, start: int) -> _Sized | None:
    if start + 24 > len(data):
        return None
    at, size = struct.unpack_from(">2I", data, start + 4)
    if not 24 <= at <= len(data) - start:
        return None
    return _Sized(start + at, None if size == 0xFFFF_FFFF else size, ((start + 8, ">I", 0),))


def _read_caf(data: mmap.mmap, start: int) -> _Sized | None:
    chunks = _Chunks(start, ">4sq", align=1)
    for name, at, size in chunks.each(data, start + 8):
        if name == b"data":  # its sound begins after a number of four bytes; -1 is allowed for its size
            return _Sized(at + 4, None if size < 0 else max(0, size - 4), ((at - 8, ">q", 4),), chunks)
    return None
