"""What a container of sound tells about its own length: is the end of the file missing?"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING

from tfaudiotl.errors import AudioError

if TYPE_CHECKING:
    import soundfile

UNKNOWN_FRAMES = 1 << 48  # libsndfile reports 2**63 - 1 for a stream whose header gives no length
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes: the largest page (RFC 3533, section 6)
_STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe declare 2**31 or 2**32 bytes, less a header

# What libsndfile logs when a container declares more bytes than the file has (it then reads on silently).
_SHORT_DATA = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_SHORT_RF64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_SHORT_W64 = re.compile(r"^riff : (\d+) \(should be (\d+)\)", re.MULTILINE)


def check_complete(sound: soundfile.SoundFile, name: str, size: int) -> None:
    """Raises AudioError where the container shows that the end of the file is missing."""
    log = sound.extra_info
    lengths = _SHORT_DATA.search(log) or (_SHORT_W64.search(log) if sound.format == "W64" else None)
    # One byte less is the padding of an odd chunk, which not every program writes.
    if lengths and int(lengths[1]) - int(lengths[2]) > 1 and int(lengths[1]) < _STREAMED_BYTES:
        raise AudioError(name, f"truncated: holds {lengths[2]} of the {lengths[1]} bytes its header declares")
    frames = _SHORT_RF64.search(log)
    if frames and int(frames[1]) < int(frames[2]) < UNKNOWN_FRAMES:
        raise AudioError(name, f"truncated: holds {frames[1]} of the {frames[2]} frames its header declares")
    if sound.format == "OGG" and _ends_inside_ogg_page(name, size):
        raise AudioError(name, "truncated: the file ends in the middle of an Ogg page")


def _ends_inside_ogg_page(name: str, size: int) -> bool:
    """Ogg has no header that tells its length, but each page tells its own (RFC 3533, section 6)."""
    tail = _tail(name, size, _OGG_PAGE)
    page = tail.rfind(b"OggS")
    if page < 0:
        return False  # something else follows the sound, a tag for example
    header = tail[page : page + 27]
    if len(header) < 27 or len(tail) < page + 27 + header[26]:
        return True
    body = sum(tail[page + 27 : page + 27 + header[26]])
    return len(tail) < page + 27 + header[26] + body


def last_ogg_page(name: str) -> int:
    """Frame at which the last Ogg page begins (where the page before it ends), or 0.

    libsndfile places a seek into the last Vorbis page too late by as many frames as the page was
    cut short (its issue 885), so reading has to come from before it.
    """
    tail = _tail(name, os.path.getsize(name), 2 * _OGG_PAGE)
    before = tail.rfind(b"OggS", 0, max(0, tail.rfind(b"OggS")))
    position: int = struct.unpack_from("<q", tail, before + 6)[0] if before >= 0 else 0
    return max(0, position)  # -1 where no packet ends on the page


def _tail(name: str, size: int, length: int) -> bytes:
    with open(name, "rb") as file:
        file.seek(max(0, size - length))
        return file.read(length)
