"""MP3 files that do not tell their length, so that decoders guess it from the bit rate of the first frame.

Many programs write such files. A guess too long makes a whole file look truncated, one too short loses its end: here
the frames are counted, and the decoder is given the count in the way that LAME writes it.
Frame headers are those of ISO/IEC 11172-3 and 13818-3, section 2.4.2.3.
"""

from __future__ import annotations

import io
import mmap
import os
from dataclasses import dataclass
from functools import lru_cache

# kbit/s of layer III by the header's index, for MPEG-1 and for MPEG-2 and 2.5; 0: not to be decoded from the header.
_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_HZ = (44_100, 48_000, 32_000)  # MPEG-1; half and a quarter of them in MPEG-2 and 2.5
_SAME = 0xFFFE_0C00  # bits of a header that are the same in all frames: sync, version, layer, sample rate
_HEADER = 4  # bytes
_DECODER_DELAY = 529  # samples, of the synthesis filters; LAME's delays are counted without it
_TAG_RATE = 9  # bit-rate index of the frame in front: at least 144 bytes, where 52 are used
_MARKED = 512  # frames from one whose place is kept to the next: what seeking has to walk through


@dataclass(frozen=True)
class _Frames:
    """The header of the first frame, how many there are, and where every 512th is."""

    header: int
    count: int
    places: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Of one frame."""
        return 1152 if self.header >> 19 & 3 == 3 else 576


def with_length(name: str, status: os.stat_result) -> CountedMp3 | None:
    """The MP3 file with a frame in front that tells its length, or None where the file tells it (or is no MP3)."""
    found = _scan(name, status.st_size, status.st_mtime_ns)
    return None if found is None else CountedMp3(name, found)


@lru_cache(maxsize=256)  # spans of a long file ask again and again
def _scan(name: str, size: int, modified: int) -> _Frames | None:
    """Counts the frames of a file; None where its first frame tells them, or none is found."""
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _next_frame(data, _after_tags(data), None)
        if start is None:
            return None
        header = _header(data, start)
        side = start + _HEADER + _side_bytes(header)
        if data[side : side + 4] in (b"Xing", b"Info") or data[start + 36 : start + 40] == b"VBRI":
            return None
        place: int | None = start
        count, places = 0, []
        while place is not None:
            end = place + _frame_bytes(_header(data, place))
            if end > len(data):
                break  # cut short: not decoded
            if count % _MARKED == 0:
                places.append(place)
            count += 1
            # Almost always the next frame begins here; else there is a tag or junk between them.
            here = end + _HEADER <= len(data) and _fits(_header(data, end), header)
            place = end if here else _next_frame(data, end, header)
        return _Frames(header, count, tuple(places))


def _header(data: mmap.mmap, place: int) -> int:
    return int.from_bytes(data[place : place + _HEADER], "big")


def _frame_bytes(header: int) -> int:
    """Length of a layer III frame, or 0 for what is no header of one."""
    version, layer, rate, hz = header >> 19 & 3, header >> 17 & 3, header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or hz == 3:
        return 0
    kbps = _KBPS[version == 3][rate]
    divisor = {3: 1, 2: 2, 0: 4}[version]
    slots = 144_000 if version == 3 else 72_000  # frames of 1152 or 576 samples, in bytes per kbit/s and Hz
    return slots * kbps // (_HZ[hz] // divisor) + (header >> 9 & 1) if kbps else 0


def _fits(header: int, first: int) -> bool:
    return header & _SAME == first & _SAME and _frame_bytes(header) > 0


def _side_bytes(header: int) -> int:
    """Bytes between a frame's header and its data, where LAME's tag stands."""
    mpeg1, mono = header >> 19 & 3 == 3, header >> 6 & 3 == 3
    return (17 if mono else 32) if mpeg1 else (9 if mono else 17)


def _after_tags(data: mmap.mmap) -> int:
    """Where the ID3v2 tags in front end: their length is in 7-bit bytes (id3.org, ID3v2.4, section 3.1)."""
    place = 0
    while data[place : place + 3] == b"ID3" and len(data) >= place + 10:
        flags, *lengths = data[place + 5 : place + 10]
        size = sum((byte & 0x7F) << shift for byte, shift in zip(lengths, (21, 14, 7, 0), strict=True))
        place += 10 + size + (10 if flags & 0x10 else 0)
    return place


def _next_frame(data: mmap.mmap, place: int, first: int | None) -> int | None:
    """Where the next frame begins that another one follows (or the end of the file)."""
    while (place := data.find(b"\xff", place)) >= 0 and place + _HEADER <= len(data):
        header = _header(data, place)
        length = _frame_bytes(header)
        if length and (first is None or _fits(header, first)):
            end = place + length
            if end == len(data) or (end + _HEADER <= len(data) and _fits(_header(data, end), header)):
                return place
        place += 1
    return None


def _length_frames(frames: _Frames, count: int) -> bytes:
    """Two silent frames like the first one: LAME's "Info" tag with the number of the others, and one to skip.

    A decoder that meets the tag drops its own delay from the beginning. Told of as much delay of the encoder as is
    then left of the second frame, it drops that frame and no more.
    """
    header = frames.header & ~0xF200 | 0x1_0000 | _TAG_RATE << 12  # this bit rate, no padding, no checksum
    place = _HEADER + _side_bytes(header)
    silent = (header.to_bytes(_HEADER, "big") + bytes(_side_bytes(header))).ljust(_frame_bytes(header), b"\0")
    tag = b"Info" + (1).to_bytes(4, "big") + (count + 1).to_bytes(4, "big")  # 1: the number of frames follows
    delay = frames.samples - _DECODER_DELAY
    tag += b"LAME".ljust(21, b"\0") + (delay << 12).to_bytes(3, "big")  # delay and padding, 12 bits each
    return silent[:place] + tag + silent[place + len(tag) :] + silent


class CountedMp3(io.RawIOBase):
    """Frames that tell the length, then the file from one of its marked frames on.

    Args:
        name: the file's.
        frames: what is in it.
        mark: number of the marked frame.
    """

    def __init__(self, name: str, frames: _Frames, mark: int = 0):
        self._name, self._frames, self._mark, self._place = name, frames, mark, 0
        self._prefix, self._start = _length_frames(frames, frames.count - mark * _MARKED), frames.places[mark]
        self._file = open(name, "rb")  # noqa: SIM115 - closed with this object
        self._length = len(self._prefix) + os.fstat(self._file.fileno()).st_size - self._start

    def later(self, sample: int) -> tuple[CountedMp3, int] | None:
        """The same from a marked frame on, the last at or before a sample, and that frame's first sample.

        None where this one begins there already.
        """
        last = len(self._frames.places) - 1 - self._mark
        ahead = min(max(0, sample) // (_MARKED * self._frames.samples), last)
        if not ahead:
            return None
        return CountedMp3(self._name, self._frames, self._mark + ahead), ahead * _MARKED * self._frames.samples

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
        wanted = len(view)
        data = self._prefix[self._place : self._place + wanted]
        if len(data) < wanted:
            self._file.seek(self._start + max(0, self._place - len(self._prefix)))
            data += self._file.read(wanted - len(data))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
