"""MP3 files without their length or with a wrong one, and several joined end to end.

Many programs write such files, and decoders then guess the length from the bit rate of the first frame, or stop where
the first of the joined files ends. Here the frames are counted, and the decoder is given each file's part with the
count in front, in the way that LAME writes it.
Frame headers are those of ISO/IEC 11172-3 and 13818-3, section 2.4.2.3.
"""

from __future__ import annotations

import mmap
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tfaudiotl.audio.containers import Part

# kbit/s of layer III by the header's index, for MPEG-1 and for MPEG-2 and 2.5; 0: not to be decoded from the header.
_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_HZ = (44_100, 48_000, 32_000)  # MPEG-1; half and a quarter of them in MPEG-2 and 2.5
_SAME = 0xFFFE_0C00  # bits of a header that are the same in all frames: sync, version, layer, sample rate
_HEADER = 4  # bytes
# The first three bytes of a layer III frame with a bit rate. Runs of 0xff, a common filling, do not match.
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")
_TAG = re.compile(rb"Xing|Info|VBRI")
_VBRI_PLACE = 36  # bytes from the frame's start
_DECODER_DELAY = 529  # samples, of the synthesis filters; LAME's delays are counted without it
_TAG_RATE = 9  # bit-rate index of the frame in front: at least 144 bytes, where 52 are used
_MARKED = 512  # frames from one whose place is kept to the next: what seeking has to walk through
_RUN = 4  # frames in a row that show a new file after the end of another: tags and pictures hold single false ones
_ID3V1 = 128  # bytes


@dataclass(frozen=True)
class _Tag:
    """What the first frame of a file says about the others, if it is a tag.

    Attributes:
        count: Number of the frames after it, or None.
        delays: The encoder's delay and padding, samples, 12 bits each; 0 where they are unknown.
    """

    count: int | None
    delays: int = 0


@dataclass(frozen=True)
class Mp3Part:
    """One MP3 file, alone or joined to others.

    Attributes:
        header: The header of its first frame.
        start: The first byte of its first frame.
        stop: One past the last byte of its last whole frame.
        count: Its frames, without the one that is a tag.
        places: Where every 512th of them begins.
        tag: Its first frame's, or None.
    """

    header: int
    start: int
    stop: int
    count: int
    places: tuple[int, ...]
    tag: _Tag | None

    @property
    def samples(self) -> int:
        """Of one frame."""
        return 1152 if self.header >> 19 & 3 == 3 else 576

    @property
    def has_length(self) -> bool:
        """Whether its tag has its length; more than there is shows a file that was cut short."""
        return self.tag is not None and self.tag.count is not None and self.tag.count >= self.count - 1

    @property
    def delays(self) -> int:
        """See ``_Tag``."""
        return self.tag.delays if self.tag else 0

    def part(self, mark: int = 0) -> Part:
        """The bytes for the decoder, from the ``mark``-th marked frame on."""
        if self.has_length:
            return Part(self.start, self.stop)
        return Part(self.places[mark], self.stop, _length_frames(self, mark))

    def later(self, sample: int) -> tuple[Part, int] | None:
        """The same from a marked frame on, the last at or before a sample, and that frame's first sample.

        None where that is the beginning, or the samples do not begin with the first frame.
        """
        if self.has_length or self.delays:
            return None
        mark = min(max(0, sample) // (_MARKED * self.samples), len(self.places) - 1)
        return (self.part(mark), mark * _MARKED * self.samples) if mark else None


@lru_cache(maxsize=256)  # spans of a long file ask again and again
def mp3_parts(name: str, size: int, modified: int) -> tuple[Mp3Part, ...]:
    """The MP3 files that a file consists of.

    Args:
        name: The file.
        size: Its bytes.
        modified: When it was changed last: a changed file is looked at again.

    Returns:
        Its parts in order; none where there is nothing to put right: it is one file with its length (or no MP3).
    """
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _next_frame(data, _after_tags(data, 0), None)
        tags = _tag_frames(data)
        parts: list[Mp3Part] = []
        while start is not None:
            part, start = _read_part(data, start, tags)
            if part.count or part.tag:
                parts.append(part)
        return () if len(parts) == 1 and parts[0].has_length else tuple(parts)


def _read_part(data: mmap.mmap, start: int, tags: Sequence[int]) -> tuple[Mp3Part, int | None]:
    """The file whose first frame is at ``start``, and where the next one begins, if there is one."""
    header, tag = _header(data, start), _read_tag(data, start)
    after = bisect_right(tags, start)
    limit = tags[after] if after < len(tags) else len(data)
    following = limit if after < len(tags) else None
    stop = min(limit, start if tag is None else start + _frame_bytes(header))
    place: int | None = stop
    count, places = 0, []
    while place is not None and place + _HEADER <= limit:
        if not _fits(_header(data, place), header):
            place, other = _resume(data, place, header)
            if other is not None and other < limit:
                following = other
                break
            continue
        end = place + _frame_bytes(_header(data, place))
        if end > limit:
            break  # cut short: not decoded
        if count % _MARKED == 0:
            places.append(place)
        count, place, stop = count + 1, end, end
    return Mp3Part(header, start, stop, count, tuple(places), tag), following


def _resume(data: mmap.mmap, place: int, header: int) -> tuple[int | None, int | None]:
    """Where the frames go on after a tag or junk: as (next frame of this file, first frame of another file)."""
    place = _after_tags(data, place)
    same, other = _next_frame(data, place, header), _next_run(data, place)
    if other is not None and (same is None or other < same) and not _fits(_header(data, other), header):
        return None, other
    return same, None


def _next_run(data: mmap.mmap, place: int) -> int | None:
    """Where the next frame begins that starts a run of frames."""
    while (found := _next_frame(data, place, None)) is not None:
        header, end, run = _header(data, found), found, 0
        while run < _RUN and end + _HEADER <= len(data) and _fits(_header(data, end), header):
            end, run = end + _frame_bytes(_header(data, end)), run + 1
        if run == _RUN:
            return found
        place = found + 1
    return None


def _tag_frames(data: mmap.mmap) -> list[int]:
    """Where the frames begin that are tags, in order."""
    found = set()
    for match in _TAG.finditer(data):
        offsets = [_VBRI_PLACE] if match[0] == b"VBRI" else [_HEADER + side for side in (32, 17, 9)]
        starts = [match.start() - offset for offset in offsets if match.start() >= offset]
        found |= {start for start in starts if _frame_bytes(_header(data, start)) and _read_tag(data, start)}
    return sorted(found)


def _read_tag(data: mmap.mmap, start: int) -> _Tag | None:
    """The tag in a frame, or None; Xing's fields are there as its flags say, in this order."""
    if data[start + _VBRI_PLACE : start + _VBRI_PLACE + 4] == b"VBRI":
        place = start + _VBRI_PLACE + 14
        return _Tag(int.from_bytes(data[place : place + 4], "big") or None)
    place = start + _HEADER + _side_bytes(_header(data, start))
    if data[place : place + 4] not in (b"Xing", b"Info"):
        return None
    flags, place = int.from_bytes(data[place + 4 : place + 8], "big"), place + 8
    count = int.from_bytes(data[place : place + 4], "big") if flags & 1 else 0
    # count, size, table of contents, quality
    place += sum(length for bit, length in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    encoder = data[place : place + 4]
    delays = int.from_bytes(data[place + 21 : place + 24], "big") if encoder in (b"LAME", b"Lavf", b"Lavc") else 0
    return _Tag(count or None, delays)


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


def _mono(header: int) -> bool:
    return header >> 6 & 3 == 3


def _fits(header: int, first: int) -> bool:
    """Whether a frame may be of the same sound as the first one: of its rate and number of channels."""
    return header & _SAME == first & _SAME and _mono(header) == _mono(first) and _frame_bytes(header) > 0


def _side_bytes(header: int) -> int:
    """Bytes between a frame's header and its data, where LAME's tag stands."""
    mpeg1 = header >> 19 & 3 == 3
    return (17 if _mono(header) else 32) if mpeg1 else (9 if _mono(header) else 17)


def _after_tags(data: mmap.mmap, place: int) -> int:
    """Where the ID3 tags at a place end: ID3v2's length is in 7-bit bytes (id3.org, ID3v2.4, section 3.1)."""
    while True:
        if data[place : place + 3] == b"ID3" and len(data) >= place + 10:
            flags, *lengths = data[place + 5 : place + 10]
            size = sum((byte & 0x7F) << shift for byte, shift in zip(lengths, (21, 14, 7, 0), strict=True))
            place += 10 + size + (10 if flags & 0x10 else 0)
        elif data[place : place + 3] == b"TAG" and len(data) >= place + _ID3V1:
            place += _ID3V1
        else:
            return min(place, len(data))


def _next_frame(data: mmap.mmap, place: int, first: int | None) -> int | None:
    """Where the next frame begins that another one follows (or the end of the file)."""
    while found := _SYNC.search(data, place):
        place = found.start()
        header = _header(data, place)
        length = _frame_bytes(header)
        if length and (first is None or _fits(header, first)):
            end = place + length
            if end == len(data) or (end + _HEADER <= len(data) and _fits(_header(data, end), header)):
                return place
        place += 1
    return None


def _length_frames(mp3: Mp3Part, mark: int) -> bytes:
    """Silent frames like the first one: LAME's "Info" tag with the number of the others, and one to skip.

    A decoder that meets the tag drops its own delay from the beginning. Told of as much delay of the encoder as is
    then left of the second frame, it drops that frame and no more. Where the file has its encoder's delays, the tag
    repeats them and there is no frame to skip.
    """
    header = mp3.header & ~0xF200 | 0x1_0000 | _TAG_RATE << 12  # this bit rate, no padding, no checksum
    place = _HEADER + _side_bytes(header)
    silent = (header.to_bytes(_HEADER, "big") + bytes(_side_bytes(header))).ljust(_frame_bytes(header), b"\0")
    skipped = 0 if mp3.delays else 1
    count = mp3.count - mark * _MARKED + skipped
    tag = b"Info" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")  # 1: the number of frames follows
    delays = mp3.delays or (mp3.samples - _DECODER_DELAY) << 12
    tag += b"LAME".ljust(21, b"\0") + delays.to_bytes(3, "big")  # delay and padding, 12 bits each
    return silent[:place] + tag + silent[place + len(tag) :] + silent * skipped
