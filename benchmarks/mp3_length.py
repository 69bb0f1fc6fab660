"""Frames of MP3 files that do not tell their length: libsndfile's guess, what this package decodes, what ffmpeg does.

    python -m benchmarks.mp3_length [FOLDER]

Two made files of variable bit rate, 6 s of loud and soft sound without the frame that tells the length, and those of a
folder, if one is given. Needs ffmpeg.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from tests.helpers.sounds import without_tag, write_vbr
from tfaudiotl import audio_info, load_audio


def by_ffmpeg(path: Path) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-ac", "1", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


def compare(path: Path) -> tuple[int, int, int, float]:
    """Frames guessed, decoded here and by ffmpeg, and the largest difference of the samples."""
    info = audio_info(path)
    ours, theirs = load_audio(path, sample_rate=info.sample_rate), by_ffmpeg(path)
    both = min(len(ours), len(theirs))
    return soundfile.info(path).frames, len(ours), len(theirs), float(np.abs(ours[:both] - theirs[:both]).max())


def main(folder: str | None = None) -> None:
    print("| file | libsndfile's guess | here | ffmpeg | largest difference |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for loud_first in (True, False):
            path = Path(scratch) / "sound.mp3"
            path.write_bytes(without_tag(write_vbr(path, rate=44_100, channels=1, loud_first=loud_first)))
            guess, ours, theirs, difference = compare(path)
            print(f"| {'loud' if loud_first else 'soft'} first | {guess} | {ours} | {theirs} | {difference:.1e} |")
    if folder:
        found = np.array([compare(path) for path in sorted(Path(folder).rglob("*.mp3"))])
        guess, ours, theirs, difference = found.T
        wrong, same = int((guess != ours).sum()), int((ours == theirs).sum())
        print(
            f"{len(found)} files: {wrong} guessed wrong, by {(guess - ours).min():.0f} to {(guess - ours).max():.0f};"
        )
        print(f"{same} as long as ffmpeg's, largest difference {difference.max():.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
