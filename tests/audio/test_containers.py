"""Files whose container is joined, unfinished, wrong about itself, or of a codec that cannot be sought."""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.sounds import tone, write, write_vbr
from tfaudiotl.audio.files import audio_info, load_audio
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import AudioError

RATE = 44_100
JOINABLE = [
    (".ogg", "OGG", "VORBIS"),
    (".opus", "OGG", "OPUS"),
    (".mp3", "MP3", "MPEG_LAYER_III"),
    (".flac", "FLAC", "PCM_16"),
    (".wav", "WAV", "PCM_16"),
    (".rf64", "RF64", "PCM_16"),
    (".w64", "W64", "PCM_16"),
    (".aiff", "AIFF", "PCM_16"),
    (".au", "AU", "PCM_16"),
]
SPANS = [(0.0, 0.4), (0.61, 0.9), (0.95, 1.31), (1.18, 1.2), (0.3, 2.4), (1.7, None)]

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    sound = 0.2 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    return sound.astype(np.float32)


def assert_spans_equal_the_whole(path: Path, rate: int, spans: list[tuple[float, float | None]] = SPANS) -> None:
    """A span is that part of the whole, at the file's own rate."""
    whole = load_audio(path, sample_rate=rate)
    for start, end in spans:
        span = load_audio(path, sample_rate=rate, start=start, end=end)
        expected = whole[round(start * rate) : None if end is None else round(end * rate)]
        assert span.shape == expected.shape, (start, end)
        np.testing.assert_allclose(span, expected, atol=2e-6, err_msg=f"{start} to {end}")


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


# Joined end to end


@pytest.mark.parametrize(("suffix", "container", "subtype"), JOINABLE)
@pytest.mark.parametrize("channels", [1, 2])
def test_joined_files_are_read_to_the_last(
    tmp_path: Path, suffix: str, container: str, subtype: str, channels: int
) -> None:
    rate = 48_000 if subtype == "OPUS" else RATE
    parts = [
        write(tmp_path / f"{n}{suffix}", noise(s, rate, channels, n), rate, subtype, container)
        for n, s in enumerate([1.2, 0.7003, 0.9])
    ]
    expected = np.concatenate([load_audio(part, sample_rate=rate, channels="all") for part in parts])
    path = joined(tmp_path / f"all{suffix}", *parts)
    info = audio_info(path)
    assert (info.frames, info.sample_rate, info.channels) == (len(expected), rate, channels)
    assert (info.format, info.subtype) == (container, subtype)
    np.testing.assert_array_equal(load_audio(path, sample_rate=rate, channels="all"), expected)
    np.testing.assert_array_equal(load_audio(path, sample_rate=rate, channels="first"), expected[:, 0])
    assert_spans_equal_the_whole(path, rate)
    twice = joined(tmp_path / f"twice{suffix}", parts[0], parts[0])  # the same serial number in both Ogg streams
    assert audio_info(twice).frames == 2 * audio_info(parts[0]).frames


@pytest.mark.parametrize(("suffix", "container", "subtype"), [kind for kind in JOINABLE if kind[2] != "OPUS"])
@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (RATE, 2)])
def test_joined_files_of_different_kinds_are_refused(
    tmp_path: Path, suffix: str, container: str, subtype: str, rate: int, channels: int
) -> None:
    first = write(tmp_path / f"a{suffix}", noise(0.5), RATE, subtype, container)
    other = write(tmp_path / f"b{suffix}", noise(0.5, rate, channels), rate, subtype, container)
    path = joined(tmp_path / f"ab{suffix}", first, other)
    message = rf"2 sounds end to end, of 44100 Hz with 1 channels and of {rate} Hz with {channels}"
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert caught.value.path == str(path)
    clips = Clips.from_files([first, path], ["a", "b"], on_error="skip")
    assert [error.path for error in clips.skipped] == [str(path)]


@pytest.mark.parametrize("suffix", [".ogg", ".mp3", ".wav"])
def test_a_joined_file_that_is_cut_short_is_truncated(tmp_path: Path, suffix: str) -> None:
    parts = [write(tmp_path / f"{n}{suffix}", noise(2, seed=n), RATE) for n in range(2)]
    whole, half = (part.read_bytes() for part in parts)
    path = tmp_path / f"cut{suffix}"
    for content in (whole + half[: len(half) // 2], whole[: len(whole) // 2] + half):
        path.write_bytes(content)
        with pytest.raises(AudioError, match="truncated"):
            load_audio(path)


def test_an_mp3_joined_to_one_that_does_not_tell_its_length(tmp_path: Path) -> None:
    tagged = write(tmp_path / "a.mp3", noise(2), RATE)
    content = tagged.read_bytes()
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(content[content.index(content[:2], 4) :])
    frames = {path: audio_info(path).frames for path in (tagged, bare)}
    for number, parts in enumerate([(tagged, bare), (bare, tagged), (bare, tagged, bare)]):
        path = joined(tmp_path / f"{number}.mp3", *parts)
        assert abs(audio_info(path).frames - sum(frames[part] for part in parts)) <= 2 * 1152
        assert_spans_equal_the_whole(path, RATE, [(0.5, 1.0), (1.9, 2.2), (3.0, 3.5)])


def test_joined_mp3s_with_tags_between_them(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{n}.mp3", noise(1, seed=n), RATE) for n in range(2)]
    expected = np.concatenate([load_audio(part, sample_rate=RATE) for part in parts])
    picture = b"\xff\xfb\x90\xc4" * 3_000
    id3 = b"ID3\x03\x00\x00" + bytes(len(picture) >> shift & 0x7F for shift in (21, 14, 7, 0)) + picture
    last = b"TAG" + bytes(125)
    path = tmp_path / "both.mp3"
    path.write_bytes(id3 + parts[0].read_bytes() + last + id3 + parts[1].read_bytes() + last)
    np.testing.assert_array_equal(load_audio(path, sample_rate=RATE), expected)


# MP3 tags


@pytest.mark.parametrize("count", [None, 0, 20])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_whose_tag_tells_no_or_a_wrong_count_is_read_whole(
    tmp_path: Path, count: int | None, channels: int
) -> None:
    path = tmp_path / "a.mp3"
    content = bytearray(write_vbr(path, rate=RATE, channels=channels, loud_first=False))
    expected = load_audio(path, sample_rate=RATE)
    place = content.index(b"Xing")
    if count is None:
        content[place + 7] &= ~1  # no count: the fields after it move up
        del content[place + 8 : place + 12]
        content[place + 152 : place + 152] = bytes(4)
    else:
        content[place + 8 : place + 12] = count.to_bytes(4, "big")
    path.write_bytes(content)
    found = load_audio(path, sample_rate=RATE)
    assert len(expected) <= len(found) <= len(expected) + 3 * 1152
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)  # the encoder's delay is still told
    assert_spans_equal_the_whole(path, RATE, [(0.5, 1.0), (1.9, 2.2), (5.0, 5.5)])


def test_a_flag_cleared_in_place_makes_the_count_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = bytearray(write_vbr(path, rate=RATE, channels=1, loud_first=True))
    frames = audio_info(path).frames
    content[content.index(b"Xing") + 7] &= ~1
    path.write_bytes(content)
    assert 0 <= audio_info(path).frames - frames <= 3 * 1152
    assert_spans_equal_the_whole(path, RATE, [(0.5, 1.0), (1.9, 2.2), (5.0, 5.5)])


def test_filling_after_an_mp3_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = write_vbr(path, rate=RATE, channels=1, loud_first=True)
    bare = content[content.index(content[:2], 4) :]
    path.write_bytes(bare)
    expected = load_audio(path, sample_rate=RATE)
    for filling in (b"\xff", b"\x00", b"\xff\xfb"):
        path.write_bytes(bare + filling * (1_000_000 // len(filling)))
        np.testing.assert_array_equal(load_audio(path, sample_rate=RATE), expected)


def test_a_note_of_macos_beside_a_file_changes_nothing(tmp_path: Path) -> None:
    note = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4_000)
    for suffix in (".mp3", ".wav", ".flac", ".ogg"):
        path = write(tmp_path / f"a{suffix}", tone(0.5, RATE), RATE)
        expected = load_audio(path)
        (tmp_path / f"._a{suffix}").write_bytes(note)
        np.testing.assert_array_equal(load_audio(path), expected)
        with pytest.raises(AudioError, match="AppleDouble"):
            load_audio(tmp_path / f"._a{suffix}")


# Codecs that cannot be sought


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        (container, subtype)
        for container in ("WAV", "W64", "AU", "AIFF", "CAF", "VOC", "XI")
        for subtype in soundfile.available_subtypes(container)
        if not subtype.startswith(("PCM", "FLOAT", "DOUBLE", "MPEG")) and subtype != "DWVW_12"  # none is written
    ],
)
def test_every_codec_is_cut_into_windows(tmp_path: Path, container: str, subtype: str) -> None:
    path = write(tmp_path / f"a.{container.lower()}", tone(2.5, 8_000), 8_000, subtype, container)
    rate = audio_info(path).sample_rate  # some formats have their own
    duration = audio_info(path).duration
    assert_spans_equal_the_whole(path, rate, [(s * duration, e * duration) for s, e in ((0.1, 0.3), (0.4, 0.95))])
    assert len(Clips.from_files([path], ["a"]).windows(duration / 3)) == 3


# Sizes that were never written


def unfinished(path: Path, container: str, declared: int) -> tuple[np.ndarray, int]:
    """Writes a file that declares so many bytes of sound; returns what it holds."""
    write(path, noise(1.5), RATE, "PCM_16", container)
    content = bytearray(path.read_bytes())
    expected, size = load_audio(path, sample_rate=RATE), 2 * round(1.5 * RATE)
    place = {"WAV": b"data", "AIFF": b"SSND", "AU": b".snd", "RF64": b"ds64", "W64": b"data", "CAF": b"data"}[container]
    at = content.index(place)
    if container == "WAV":
        content[at + 4 : at + 8] = struct.pack("<I", declared)
        content[4:8] = struct.pack("<I", declared)
    elif container == "AIFF":
        content[at + 4 : at + 8] = struct.pack(">I", min(declared + 8, 0xFFFFFFFF))
    elif container == "AU":
        content[8:12] = struct.pack(">I", declared)
    elif container == "RF64":
        content[at + 16 : at + 24] = struct.pack("<Q", declared)
    elif container == "W64":
        content[at + 16 : at + 24] = struct.pack("<Q", declared + 24)
    else:
        content[at + 4 : at + 12] = struct.pack(">q", declared + 4)
    path.write_bytes(content)
    return expected, size


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "RF64", "W64", "CAF"])
@pytest.mark.parametrize("off", ["zero", "header too large", "stale", "streamed"])
def test_a_file_that_was_not_closed_is_read_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, container: str, off: str
) -> None:
    path = tmp_path / f"a.{container.lower()}"
    size = 2 * round(1.5 * RATE)
    declared = {"zero": 0, "header too large": size + 44, "stale": size // 2, "streamed": 0xFFFFFFFF}[off]
    expected, _ = unfinished(path, container, declared)
    with caplog.at_level(logging.WARNING, logger="tfaudiotl"):
        found = load_audio(path, sample_rate=RATE)
        assert_spans_equal_the_whole(path, RATE, [(0.2, 0.5), (0.7, 1.1), (1.2, None)])
    np.testing.assert_array_equal(found, expected)
    if (container, off) != ("AU", "streamed"):  # AU has a number for a size that is not known
        assert [record.getMessage().count(str(path)) for record in caplog.records] == [1]  # once, not for every span


def test_wave_sizes_of_zero_in_both_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1), RATE)
    expected, content = load_audio(path, sample_rate=RATE), bytearray(path.read_bytes())
    for riff in (0, 8, 36, len(content) - 8, 0xFFFFFFFF):
        content[4:8], content[40:44] = struct.pack("<I", riff), bytes(4)
        path.write_bytes(content)
        np.testing.assert_array_equal(load_audio(path, sample_rate=RATE), expected)


def test_chunks_after_the_sound_are_no_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = write(tmp_path / "a.wav", noise(0.5)[:-1], RATE, "PCM_U8").read_bytes()
    odd = plain[: 44 + struct.unpack("<I", plain[40:44])[0]]
    assert len(odd) % 2 == 1
    path = tmp_path / "b.wav"
    path.write_bytes(plain)
    expected = load_audio(path, sample_rate=RATE)
    chunk = b"LIST" + struct.pack("<I", 12) + b"INFOICMT\0\0\0\0"
    for rest in (b"\0" + chunk, chunk, b"\0" + chunk * 3, b"\0" + chunk[:-3], b"TAG" + bytes(125), bytes(1_000)):
        path.write_bytes(odd + rest)
        np.testing.assert_array_equal(load_audio(path, sample_rate=RATE), expected)
    path.write_bytes(plain[:40] + bytes(4) + chunk)
    with pytest.raises(AudioError, match="no samples"):
        load_audio(path)
    assert not caplog.records


def test_a_file_that_lacks_more_than_a_header_is_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1), RATE)
    content = path.read_bytes()
    path.write_bytes(content[:-400])
    with pytest.raises(AudioError, match=r"truncated: holds 87800 of the 88200 bytes"):
        audio_info(path)


# Headers that cannot be


@pytest.mark.parametrize("rate", [0, 1, 50, 20_000_000, 0x7FFFFFFF])
def test_a_sample_rate_out_of_range_names_the_file_and_is_skipped(tmp_path: Path, rate: int) -> None:
    path, good = tmp_path / "odd.wav", write(tmp_path / "good.wav", tone(0.5, RATE), RATE)
    content = bytearray(good.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    for read in (audio_info, load_audio):
        with pytest.raises(AudioError) as caught:
            read(path)
        assert caught.value.path == str(path)
        if rate:
            assert f"{rate} Hz: sample rates of 100 to 10000000 Hz" in caught.value.reason
    clips = Clips.from_files([good, path], ["a", "a"], on_error="skip")
    assert [error.path for error in clips.skipped] == [str(path)]


@pytest.mark.parametrize(("peak", "divisor"), [(90.0, 128), (20_000.0, 32_768), (5e6, 8_388_608), (2e9, 2_147_483_648)])
def test_unscaled_floats_say_how_to_scale(tmp_path: Path, peak: float, divisor: int) -> None:
    path = write(tmp_path / "a.wav", peak * tone(0.5, RATE, amplitude=1.0), RATE, "FLOAT")
    message = rf"a\.wav: float samples reach .* divide them by the full scale of \d+ bits, {divisor},"
    with pytest.raises(AudioError, match=message):
        load_audio(path)


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".au", ".rf64", ".w64", ".caf", ".flac", ".ogg", ".opus", ".mp3"])
def test_no_beginning_of_a_file_ends_in_another_error(tmp_path: Path, suffix: str) -> None:
    container, subtype = {".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS"), ".mp3": ("MP3", None)}.get(
        suffix, (suffix[1:].upper(), "PCM_16")
    )
    whole = write(tmp_path / f"a{suffix}", noise(1, 48_000), 48_000, subtype, container).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for size in [0, *range(1, 120, 3), 200, 500, 4_200, len(whole) // 2, len(whole) - 2_000]:
        path.write_bytes(whole[:size])
        with pytest.raises(AudioError) as caught:
            load_audio(path)
        assert caught.value.path == str(path), size


# Through ffmpeg


def webm(path: Path, codec: str, *, piped: bool, seconds: float = 3.0) -> Path:
    wave = write(path.with_suffix(".source.wav"), noise(seconds, 48_000, 2), 48_000)
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(wave), "-c:a", codec, "-f", "webm"]
    if piped:
        path.write_bytes(subprocess.run([*command, "-"], check=True, capture_output=True).stdout)
    else:
        subprocess.run([*command, str(path)], check=True)
    return path


@needs_ffmpeg
@pytest.mark.parametrize(("codec", "piped"), [("libopus", True), ("libopus", False), ("libvorbis", True)])
def test_webm_with_and_without_a_length(tmp_path: Path, codec: str, piped: bool) -> None:
    path = webm(tmp_path / "a.webm", codec, piped=piped)
    info = audio_info(path)
    assert (info.sample_rate, info.channels, info.format) == (48_000, 2, "MATROSKA")
    assert info.duration == pytest.approx(3.0, abs=0.03)
    assert_spans_equal_the_whole(path, 48_000)
    assert load_audio(path, channels="all").shape[1] == 2
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match="truncated"):
        load_audio(path)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".aac", ".m4a", ".wma", ".mpg"])
def test_spans_of_noise_equal_the_whole_in_every_container(tmp_path: Path, suffix: str) -> None:
    wave = write(tmp_path / "a.wav", noise(3), RATE)
    path = tmp_path / f"a{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", wave, path], check=True)
    assert audio_info(path).duration == pytest.approx(3.0, abs=0.15)
    assert_spans_equal_the_whole(path, RATE)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".webm", ".m4a", ".flv", ".aac"])
def test_joined_files_of_ffmpegs_are_read_to_the_last(tmp_path: Path, suffix: str) -> None:
    parts = []
    for number, seconds in enumerate([1.2, 0.9]):
        wave = write(tmp_path / f"{number}.wav", noise(seconds, seed=number), RATE)
        parts.append(tmp_path / f"{number}: {suffix}")
        subprocess.run(["ffmpeg", "-v", "error", "-i", wave, "-ar", "48000", f"file:{parts[-1]}"], check=True)
    path = joined(tmp_path / f"all{suffix}", *parts)
    assert audio_info(path).frames == pytest.approx(sum(audio_info(part).frames for part in parts), abs=4_096)
    whole, first = load_audio(path), load_audio(parts[0])
    np.testing.assert_allclose(whole[:16_000], first[:16_000], atol=1e-5)
    assert np.abs(whole[-8_000:]).max() > 0.1
    assert_spans_equal_the_whole(path, 48_000, [(0.0, 0.4), (0.95, 1.31), (1.6, 1.9)])


@needs_ffmpeg
def test_the_spans_of_a_recording_are_cut_from_one_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = webm(tmp_path / "a.webm", "libopus", piped=True)
    audio_info(path)
    ran = []
    run = subprocess.run

    def counted(command: list[str], **options: object) -> object:
        ran.append(command[0])
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", counted)
    for start in (0.5, 1.0, 1.5):
        load_audio(path, start=start, end=start + 0.5)
    assert "ffmpeg" not in ran
