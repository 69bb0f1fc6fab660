"""MP3 files without a frame that tells their length, as many programs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import tfaudiotl as tl
from tests.helpers.sounds import without_tag, write_vbr

SECONDS = 6


def id3(size: int) -> bytes:
    """An ID3v2 tag with a picture's worth of bytes, false frame headers among them."""
    lengths = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + lengths + (b"\xff\xfb\x90\xc4" * size)[:size]


@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (48_000, 2), (22_050, 2), (16_000, 1), (8_000, 1)])
def test_the_length_is_counted_where_the_file_does_not_tell_it(
    rate: int, channels: int, loud_first: bool, tmp_path: Path
) -> None:
    tagged, untagged = tmp_path / "tagged.mp3", tmp_path / "untagged.mp3"
    untagged.write_bytes(without_tag(write_vbr(tagged, rate=rate, channels=channels, loud_first=loud_first)))
    guess = soundfile.info(untagged).frames
    assert abs(guess - SECONDS * rate) > rate  # this is what the counting is for
    info = tl.audio_info(untagged)
    frame = 1152 if rate > 24_000 else 576
    assert info.frames % frame == 0
    assert 0 <= info.frames - SECONDS * rate <= 3 * frame
    known, found = (tl.load_audio(path, sample_rate=rate) for path in (tagged, untagged))
    assert len(found) == info.frames
    delay = 576 + 529  # of LAME and of the decoder, which the tag tells to leave out
    np.testing.assert_allclose(found[delay : delay + len(known)], known[: len(found) - delay], atol=1e-5)


@pytest.mark.parametrize("tag", [True, False])
def test_spans_hold_the_samples_of_the_whole(tag: bool, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    data = write_vbr(path, rate=44_100, channels=1, loud_first=False)
    if not tag:
        path.write_bytes(without_tag(data))
    whole = tl.load_audio(path, sample_rate=44_100)
    for start in np.arange(0, SECONDS - 0.5, 0.37):
        span = tl.load_audio(path, sample_rate=44_100, start=start, end=start + 0.4)
        first = round(start * 44_100)
        np.testing.assert_allclose(span, whole[first : first + len(span)], atol=1e-6)


def test_spans_of_a_long_file_do_not_walk_through_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.mp3"
    data = without_tag(write_vbr(path, rate=44_100, channels=1, loud_first=False))
    path.write_bytes(data * 20)
    whole = tl.load_audio(path, sample_rate=44_100)
    marks = 512 * 1_152 * np.arange(1, 9)
    just_after = (marks + 16 * 1_152 + 10) / 44_100  # the lead of 16 frames would begin at the mark
    for start in [*np.arange(0.5, 118, 3.7), *just_after]:
        span = tl.load_audio(path, sample_rate=44_100, start=start, end=start + 0.4)
        first = round(start * 44_100)
        np.testing.assert_allclose(span, whole[first : first + len(span)], atol=1e-6)
    end = tl.audio_info(path).duration
    assert len(tl.load_audio(path, sample_rate=44_100, start=end - 0.1)) == 4_410
    assert "error" not in capfd.readouterr().err  # of libmpg123, for frames whose bits lie before the mark


def test_tags_and_junk_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    data = without_tag(write_vbr(path, rate=44_100, channels=1, loud_first=True))
    path.write_bytes(data)
    plain = tl.load_audio(path, sample_rate=44_100)
    path.write_bytes(id3(40_000) + id3(300) + data + b"TAG" + bytes(125))
    np.testing.assert_array_equal(tl.load_audio(path, sample_rate=44_100), plain)
    path.write_bytes(data[:-10])  # the last frame is cut short
    cut = tl.load_audio(path, sample_rate=44_100)
    np.testing.assert_array_equal(cut, plain[: len(plain) - 1152])


def test_a_changed_file_is_counted_again(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    data = without_tag(write_vbr(path, rate=44_100, channels=1, loud_first=True))
    path.write_bytes(data)
    before = tl.audio_info(path).frames
    path.write_bytes(data + data)
    assert tl.audio_info(path).frames == 2 * before


def test_real_files_of_another_program(shared: Path) -> None:
    clips = tl.Clips.from_directory(shared / "data" / "orchestra", on_error="raise")
    assert len(clips) == 280
    for row in range(0, len(clips), 20):
        assert len(clips.load(row, sample_rate=44_100)) == round(clips.durations[row] * 44_100)
