"""A folder of difficult sound files: every format, width, rate and channel count, and every way to be broken."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tests.helpers.sounds import tone, write

SECONDS = 0.3
# Largest step between a sample and its stored value, of full scale; None is a lossy codec, whose reference is a decode.
STEPS: dict[str, float | None] = {
    "PCM_U8": 2**-7,
    "PCM_S8": 2**-7,
    "PCM_16": 2**-15,
    "PCM_24": 2**-23,
    "PCM_32": 2**-23,  # a float32 has 24 bits
    "FLOAT": 2**-23,
    "DOUBLE": 2**-23,
    "ALAC_16": 2**-15,
    "ALAC_24": 2**-23,
    "ULAW": None,
    "ALAW": None,
    "IMA_ADPCM": None,
    "VORBIS": None,
    "OPUS": None,
    "MPEG_LAYER_III": None,
}
PCM_RATES, CHANNELS = (4_000, 44_100, 192_000), (1, 2, 8)
# container -> suffix, sample formats, rates, channels
FORMATS: dict[str, tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {
    "WAV": (".wav", ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"), PCM_RATES, CHANNELS),
    "WAVEX": (".wav", ("PCM_16", "PCM_24", "FLOAT"), PCM_RATES, CHANNELS),
    "RF64": (".rf64", ("PCM_16", "PCM_24"), PCM_RATES, CHANNELS),
    "W64": (".w64", ("PCM_16",), PCM_RATES, CHANNELS),
    "AIFF": (".aiff", ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"), PCM_RATES, CHANNELS),
    "CAF": (".caf", ("PCM_16", "PCM_24", "FLOAT", "ALAC_16"), PCM_RATES, CHANNELS),
    "AU": (".au", ("PCM_16", "PCM_24", "FLOAT"), PCM_RATES, CHANNELS),
    "FLAC": (".flac", ("PCM_S8", "PCM_16", "PCM_24"), PCM_RATES, CHANNELS),
    "OGG": (".ogg", ("VORBIS",), (8_000, 22_050, 44_100, 96_000), (1, 2, 6)),
    "OPUS": (".opus", ("OPUS",), (8_000, 16_000, 48_000), (1, 2)),
    "MP3": (".mp3", ("MPEG_LAYER_III",), (8_000, 22_050, 32_000, 44_100, 48_000), (1, 2)),
}
ODD_NAMES = ("käse 日本.wav", "two\nlines.wav", " space .wav", "%s{}[*]?.wav", "-dash.wav", "quote'\".wav")


@dataclass(frozen=True)
class Good:
    """A file that must be read.

    Attributes:
        path: Where it is.
        rate: Its rate, Hz.
        samples: float64 (frames, channels): what it must decode to, at its own rate.
        tolerance: How near, of full scale.
    """

    path: Path
    rate: int
    samples: np.ndarray
    tolerance: float


def good_files(folder: Path) -> list[Good]:
    """One file for each container, sample format, rate and channel count that the container has, and odd ones."""
    made = []
    for container, (suffix, subtypes, rates, channel_counts) in FORMATS.items():
        for subtype in subtypes:
            for rate in rates:
                for channels in channel_counts:
                    path = folder / f"{container}-{subtype}-{rate}-{channels}{suffix}"
                    made.append(_good(path, "OGG" if container == "OPUS" else container, subtype, rate, channels))
    made += [_good(folder / name, "WAV", "PCM_16", 16_000, 1) for name in ODD_NAMES]
    silence, offset, clipped = (
        np.zeros((4_000, 1)),
        np.full((4_000, 1), 0.25),
        np.tile([[1.0 - 2**-15], [-1.0]], (9, 1)),
    )
    for name, samples in {
        "silence": silence,
        "offset": offset,
        "clipped": clipped,
        "one-sample": offset[:1],
        "two-samples": clipped[:2],
    }.items():
        write(folder / f"{name}.wav", samples, 16_000)
        made.append(Good(folder / f"{name}.wav", 16_000, samples, 2**-15))
    for name, of in {
        "wrong extension.mp3": "FLAC-PCM_16-44100-2.flac",
        "copy of.flac": "FLAC-PCM_16-44100-2.flac",
    }.items():
        shutil.copy(folder / of, folder / name)
        original = next(file for file in made if file.path.name == of)
        made.append(Good(folder / name, original.rate, original.samples, original.tolerance))
    return made


def _good(path: Path, container: str, subtype: str, rate: int, channels: int) -> Good:
    samples = np.stack(
        [tone(SECONDS, rate, frequency=200 * (number + 1), amplitude=0.5 / (number + 1)) for number in range(channels)],
        axis=1,
    )
    write(path, samples, rate, subtype, container)
    step = STEPS[subtype]
    if step is None:  # what soundfile makes of the whole file in double precision
        return Good(path, rate, soundfile.read(os.fsencode(path), dtype="float64", always_2d=True)[0], 1e-5)
    return Good(path, rate, samples.astype(np.float64), step)


def bad_files(folder: Path) -> dict[Path, str]:
    """Files that must be refused, with a word of the reason; the second half is found out only by decoding."""
    whole = write(folder / "whole.wav", tone(1.0, 16_000)).read_bytes()
    (folder / "whole.wav").unlink()
    contents = {
        "zero bytes.wav": (b"", "empty"),
        "zero bytes.mp3": (b"", "empty"),
        "text.wav": (b"hello, world\n" * 50, "not a sound file"),
        "random.ogg": (np.random.default_rng(0).bytes(4_000), "not a sound file"),
        "header only.wav": (whole[:44], "truncated"),
        "half a header.wav": (whole[:20], ""),
        "no samples.wav": (whole[:40] + struct.pack("<I", 0), "no samples"),
        "truncated.wav": (whole[:9_001], "truncated"),
    }
    for suffix in (".flac", ".aiff", ".au", ".rf64", ".w64", ".caf", ".ogg", ".opus", ".mp3"):
        container, subtype = {
            ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS"), ".mp3": ("MP3", "MPEG_LAYER_III")
        }.get(suffix, (suffix[1:].upper(), "PCM_16"))  # fmt: skip
        path = write(folder / f"whole{suffix}", tone(6.0, 48_000), 48_000, subtype, container)
        content = path.read_bytes()
        path.unlink()
        contents[f"truncated{suffix}"] = (content[: int(len(content) * 0.61)], "")
        contents[f"header only{suffix}"] = (content[:60], "")
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    bad = {folder / name: reason for name, (_, reason) in contents.items()}
    for name, value, reason in [
        ("nan", np.nan, "NaN or infinite"),
        ("inf", np.inf, "NaN or infinite"),
        ("unscaled", 20_000.0, "integers"),
    ]:
        for subtype in ("FLOAT", "DOUBLE"):
            samples = tone(0.2, 16_000)
            samples[100] = value
            bad[write(folder / f"{name}-{subtype}.wav", samples, 16_000, subtype)] = reason
    return bad


def long_silence(path: Path, hours: float = 3.0, rate: int = 16_000) -> Path:
    """Hours of zeros that take no space on the disk."""
    write(path, np.zeros(10), rate)
    header, size = bytearray(path.read_bytes()[:44]), int(2 * rate * 3_600 * hours)
    header[4:8], header[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(44 + size)
    return path
