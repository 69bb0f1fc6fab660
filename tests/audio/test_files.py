from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.sounds import tone, write
from tfaudiotl.audio import files
from tfaudiotl.audio.files import AUDIO_EXTENSIONS, LongSound, audio_info, load_audio, open_samples, write_audio
from tfaudiotl.audio.waveform import SAMPLE_RATE, check_rate, check_waveform, is_silent, resample, sounding
from tfaudiotl.errors import AudioError

# container, sample format, suffix, largest error of a sample
FORMATS = [
    ("WAV", "PCM_U8", ".wav", 1 / 127),
    ("WAV", "PCM_16", ".wav", 1 / 32000),
    ("WAV", "PCM_24", ".wav", 1e-6),
    ("WAV", "PCM_32", ".wav", 1e-6),
    ("WAV", "FLOAT", ".wav", 1e-6),
    ("WAV", "DOUBLE", ".wav", 1e-6),
    ("WAVEX", "PCM_16", ".wav", 1 / 32000),
    ("RF64", "PCM_16", ".rf64", 1 / 32000),
    ("W64", "PCM_16", ".w64", 1 / 32000),
    ("AIFF", "PCM_S8", ".aiff", 1 / 127),
    ("AIFF", "PCM_16", ".aiff", 1 / 32000),
    ("CAF", "PCM_16", ".caf", 1 / 32000),
    ("AU", "PCM_16", ".au", 1 / 32000),
    ("FLAC", "PCM_16", ".flac", 1 / 32000),
    ("FLAC", "PCM_24", ".flac", 1e-6),
    ("OGG", "VORBIS", ".ogg", 0.02),
    ("OGG", "OPUS", ".opus", 0.03),
    ("MP3", "MPEG_LAYER_III", ".mp3", 0.02),
]
EDGE = 800  # samples: filters ring where a tone starts and stops


def frames_with_nan(value: float) -> np.ndarray:
    sound = tone(0.2, 16_000)
    sound[100] = value
    return sound


@pytest.mark.parametrize(("container", "subtype", "suffix", "tolerance"), FORMATS)
def test_every_format_gives_the_tone(
    tmp_path: Path, container: str, subtype: str, suffix: str, tolerance: float
) -> None:
    path = write(tmp_path / f"tone{suffix}", tone(1.0, 16_000), 16_000, subtype, container)
    result = load_audio(path)
    assert result.dtype == np.float32
    assert result.shape == (16_000,)
    assert np.abs(result - tone(1.0, 16_000))[EDGE:-EDGE].max() < tolerance
    assert suffix in AUDIO_EXTENSIONS


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_channel_count_gives_the_tone(tmp_path: Path, rate: int, channels: int) -> None:
    gains = np.linspace(0.5, 1.5, channels) if channels > 1 else np.ones(1)  # mean 1
    path = write(tmp_path / "tone.wav", tone(1.003, rate)[:, None] * gains, rate, "PCM_24")
    result = load_audio(path)
    frames = audio_info(path).frames
    assert len(result) == -(-frames * SAMPLE_RATE // rate)
    assert np.abs(result - tone(2.0, SAMPLE_RATE)[: len(result)])[EDGE:-EDGE].max() < 1e-4


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_no_alias_is_heard(rate: int) -> None:
    for frequency in range(8_100, rate // 2, 1_000):
        above_nyquist = resample(tone(1.0, rate, frequency=frequency, amplitude=1.0), rate, 16_000)
        assert np.abs(above_nyquist)[EDGE:-EDGE].max() < 1e-4, frequency  # -80 dB
    time, low, high = np.arange(2 * rate) / rate, 8_100, 0.499 * rate
    sweep = np.sin(2 * np.pi * (low * time + (high - low) / 4 * time**2))
    assert np.abs(resample(sweep, rate, 16_000))[EDGE:-EDGE].max() < 1e-4


@pytest.mark.parametrize("from_rate", [8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000])
def test_length_is_one_formula(from_rate: int) -> None:
    for frames in [0, 1, 2, 3, 10, 399, 1000, 15_600, from_rate, from_rate + 1]:
        for shape in [(frames,), (frames, 2)]:
            result = resample(np.ones(shape, np.float32), from_rate, 16_000)
            assert result.shape == (-(-frames * 16_000 // from_rate), *shape[1:])
            assert np.isfinite(result).all()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_span_is_that_part_of_the_whole(tmp_path: Path, suffix: str, rate: int, rng: np.random.Generator) -> None:
    path = write(tmp_path / f"noise{suffix}", 0.1 * rng.standard_normal(4 * rate).astype(np.float32), rate)
    whole = load_audio(path)
    for start, end in [(0.0, 1.0), (0.02, 0.5), (1.0, 2.5), (2.0, 4.0), (3.5, None), (3.9, 4.0)]:
        span = load_audio(path, start=start, end=end)
        expected = whole[round(start * 16_000) : round((end or 4.0) * 16_000)]
        assert span.shape == expected.shape
        assert np.abs(span - expected).max() < 1e-3


def test_a_span_of_a_long_file_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write(path, tone(0.1, 16_000))
    header = bytearray(path.read_bytes()[:44])
    size = 2 * 16_000 * 3600 * 3
    header[4:8], header[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    with path.open("wb") as file:  # three hours of zeros that take no space on the disk
        file.write(header)
        file.truncate(44 + size)
    assert audio_info(path).duration == 3600 * 3
    assert load_audio(path, start=10_000, end=10_001).shape == (16_000,)


def test_info(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.stack([tone(1.5, 44_100)] * 2, axis=1), 44_100)
    info = audio_info(path)
    assert (info.path, info.duration, info.sample_rate, info.channels) == (str(path), 1.5, 44_100, 2)
    assert (info.frames, info.format, info.subtype) == (66_150, "FLAC", "PCM_16")


@pytest.mark.parametrize("name", ["käse 日本.wav", "two\nlines.wav", " space .wav", "%s{}.wav", "no-suffix"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, tone(0.1, 16_000), container="WAV")
    assert len(load_audio(path)) == 1_600


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    try:
        os.replace(write(tmp_path / "a.wav", tone(0.1, 16_000)), path)
    except OSError:
        pytest.skip("the file system refuses it")
    assert len(load_audio(path)) == 1_600


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("bad")
    good = write(folder / "good.wav", tone(1.0, 16_000)).read_bytes()
    made = {
        "zero.wav": (b"", "empty"),
        "text.wav": (b"hello, world\n" * 50, "not a sound file"),
        "noise.mp3": (bytes(range(256)) * 20, "not a sound file"),
        "headerless.raw": (good[44:], "no header"),
        "header.wav": (good[:44], "truncated"),
        "truncated.wav": (good[: len(good) // 2], "truncated"),
        "closed.wav": (good[:40] + struct.pack("<I", 0), "no samples"),
    }
    for suffix, reason in [
        (".flac", "damaged or truncated"),
        (".aiff", "truncated"),
        (".au", "truncated"),
        (".rf64", "truncated"),
        (".w64", "truncated"),
        (".caf", ""),
        (".ogg", "truncated"),
        (".opus", "truncated"),
        (".mp3", "truncated"),
    ]:
        write_audio(folder / f"whole{suffix}", tone(8.0, 48_000), sample_rate=48_000)
        whole = (folder / f"whole{suffix}").read_bytes()
        made[f"truncated{suffix}"] = (whole[: int(len(whole) * 0.7)], reason)
    result = {}
    for name, (content, reason) in made.items():
        (folder / name).write_bytes(content)
        result[name] = (folder / name, reason)
    result["missing"] = (folder / "missing.wav", "no such file")
    result["directory"] = (folder, "directory")
    result["empty.aiff"] = (write(folder / "empty.aiff", np.zeros(0)), "no samples")
    for name, value in [("nan.wav", np.nan), ("inf.wav", np.inf), ("huge.wav", 20_000.0)]:
        reason = "integers" if value == 20_000 else "NaN or infinite, the first is number 100"
        result[name] = (write(folder / name, frames_with_nan(value), 16_000, "FLOAT"), reason)
    result["double.wav"] = (write(folder / "double.wav", frames_with_nan(np.nan), 16_000, "DOUBLE"), "NaN")
    return result


@pytest.mark.parametrize(
    "name",
    ["zero.wav", "text.wav", "noise.mp3", "headerless.raw", "header.wav", "truncated.wav", "closed.wav"]
    + [f"truncated{suffix}" for suffix in [".flac", ".aiff", ".au", ".rf64", ".w64", ".caf", ".ogg", ".opus", ".mp3"]]
    + ["missing", "directory", "empty.aiff", "nan.wav", "inf.wav", "huge.wav", "double.wav"],
)
def test_bad_files_are_named_with_the_reason(bad_files: dict[str, tuple[Path, str]], name: str) -> None:
    path, reason = bad_files[name]
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert reason in caught.value.reason
    assert isinstance(caught.value, ValueError)


def test_special_files_do_not_hang(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop.wav", tmp_path / "pipe.wav"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path in map(str, [loop, pipe, "null\0byte.wav", os.devnull]):
        with pytest.raises(AudioError):
            audio_info(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.1, 16_000))
    path.chmod(0)
    with pytest.raises(AudioError, match="permission"):
        audio_info(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wave_that_was_streamed_is_whole(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16_000))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(load_audio(path)) == 16_000


def test_a_flac_that_was_streamed_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(1.0, 44_100), 44_100)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO: the 36 bits of the total number of samples, 0 for unknown
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert audio_info(path).frames == 44_100
    assert len(load_audio(path)) == 16_000
    assert len(load_audio(path, start=0.25, end=0.75)) == 8_000


def test_an_unpadded_odd_chunk_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.1, 16_000)[:1_599], 16_000, "PCM_U8")
    content = path.read_bytes()
    path.write_bytes(content[: 44 + 1_599])
    assert len(load_audio(path)) == 1_599


@pytest.mark.parametrize(
    ("start", "end"), [(-1.0, None), (2.0, None), (0.5, 0.5), (0.5, 0.2), (0.0, 1.5), (float("nan"), 0.5)]
)
def test_a_span_outside_the_file(tmp_path: Path, start: float, end: float | None) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16_000))
    with pytest.raises(AudioError, match=r"span start=.* s, end=.* s .* lasts 1 s"):
        load_audio(path, start=start, end=end)


def test_a_span_may_end_a_rounding_after_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16_000)[:15_990])
    assert len(load_audio(path, end=1.0)) == 15_990


def test_waveforms_of_every_type() -> None:
    sound = tone(0.5, 16_000)
    for bits, tolerance in [(8, 0.01), (16, 1e-4), (32, 1e-6)]:
        stored = np.round(sound.astype(float) * 2 ** (bits - 1)).astype(f"int{bits}")
        assert np.abs(check_waveform(stored, sample_rate=16_000) - sound).max() < tolerance
    unsigned = np.round(sound * 128 + 128).astype(np.uint8)
    assert np.abs(check_waveform(unsigned, sample_rate=16_000) - sound).max() < 0.01
    for dtype in ["float16", "float32", "float64"]:
        assert np.abs(check_waveform(sound.astype(dtype), sample_rate=16_000) - sound).max() < 1e-3
    assert check_waveform(sound.tolist(), sample_rate=16_000).dtype == np.float32
    assert check_waveform(np.array([-32768, 32767], np.int16), sample_rate=16_000).tolist() == [
        -1.0,
        32767 / 32768,
    ]


def test_waveforms_of_other_rates_and_channels() -> None:
    stereo = np.stack([tone(1.0, 48_000), np.zeros(48_000, np.float32)], axis=1)
    result = check_waveform(stereo, sample_rate=48_000)
    assert np.abs(result - tone(1.0, 16_000) / 2)[EDGE:-EDGE].max() < 1e-4
    assert check_waveform(stereo, sample_rate=48_000, target_rate=8_000).shape == (8_000,)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((2, 100)), r"shape \(2, 100\).*channels, samples.*transpose"),
        (np.zeros((2, 100, 1)), r"shape \(2, 100, 1\)"),
        (np.zeros(0), "no samples"),
        (np.float32(1.0), r"shape \(\)"),
        (np.array([0.0, np.nan]), "1 samples are NaN or infinite, the first is number 1"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
        (np.array([1e300]), "NaN or infinite"),
        (np.array([0.0, 12_000.0]), "reach 12000.*full scale"),
        (np.zeros(4, bool), "dtype bool"),
        (np.zeros(4, complex), "dtype complex"),
        (np.array(["a"]), "dtype <U1"),
        (np.zeros(4, np.int64), r"dtype int64.*clip.astype\('int16'\)"),
        (np.zeros(4, np.uint16), "dtype uint16"),
    ],
)
def test_bad_waveforms(waveform: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=f"(?s)clip: .*{message}"):
        check_waveform(waveform, sample_rate=16_000, name="clip")


@pytest.mark.parametrize("rate", [0, -1, 0.5, 16_000.5, float("nan"), "16000", None, True, 10**9])
def test_bad_rates(rate: object) -> None:
    with pytest.raises(ValueError, match=r"sample_rate=.*whole number of Hz"):
        check_rate("sample_rate", rate)
    assert check_rate("sample_rate", np.float64(44_100.0)) == 44_100


def test_silence() -> None:
    assert is_silent(np.zeros(10))
    assert not is_silent(np.array([0.0, 1e-9]))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".caf"])
def test_write_and_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for _ in range(2):  # the second time over an existing file
        write_audio(path, tone(1.0, 16_000))
        assert np.abs(load_audio(path) - tone(1.0, 16_000))[EDGE:-EDGE].max() < 0.03
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_written_wave_is_16_bit_clipped_and_readable_as_other_files_are(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, np.stack([np.array([2.0, -2.0, 0.5])] * 2, axis=1), sample_rate=44_100)
    assert (audio_info(path).subtype, audio_info(path).channels) == ("PCM_16", 2)
    assert load_audio(path, sample_rate=44_100).tolist() == pytest.approx([1.0, -1.0, 0.5], abs=1e-4)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_audio(path, tone(0.5, 16_000))
    before = path.read_bytes()
    with pytest.raises(AudioError, match=r"a\.mp3.*12345 Hz"):
        write_audio(path, tone(0.5, 16_000), sample_rate=12_345)  # no such MP3
    with pytest.raises(AudioError, match="NaN"):
        write_audio(path, np.array([np.nan]))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="no sound format"):
        write_audio(tmp_path / "a.docx", tone(0.5, 16_000))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_audio(tmp_path / "none" / "a.wav", tone(0.5, 16_000))


def test_real_clips(shared: Path) -> None:
    paths = sorted((shared / "data" / "esc10").glob("*/*.ogg"))[::20]
    assert paths
    for path in paths:
        waveform = load_audio(path)
        samples, rate = soundfile.read(str(path), dtype="float32")
        assert len(waveform) == -(-len(samples) * 16_000 // rate)
        spectrum = np.abs(np.fft.rfft(samples)) ** 2 / len(samples) ** 2
        below = np.fft.rfftfreq(len(samples), 1 / rate) < 7_000  # where the filter is flat
        resampled = np.abs(np.fft.rfft(waveform)) ** 2 / len(waveform) ** 2
        kept = resampled[np.fft.rfftfreq(len(waveform), 1 / 16_000) < 7_000].sum()
        assert kept == pytest.approx(spectrum[below].sum(), rel=0.01)
        assert audio_info(path).duration == pytest.approx(5.0, abs=0.1)


def test_every_real_file_has_a_readable_header(shared: Path) -> None:
    paths = [path for path in (shared / "data").rglob("*") if path.suffix in AUDIO_EXTENSIONS]
    for path in paths[::5]:
        assert audio_info(path).duration > 0


# Long files in blocks


@pytest.mark.parametrize(
    ("rate", "suffix"), [(16_000, "wav"), (44_100, "wav"), (22_050, "flac"), (11_025, "ogg"), (44_100, "mp3")]
)
def test_a_long_file_is_sliced_as_an_array(
    rate: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_SECONDS", 2)
    wave = np.random.default_rng(0).normal(0, 0.1, round(7.3 * rate)).clip(-1, 1)
    wave[round(6.9 * rate) :] = 0
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, wave, rate)
    whole = load_audio(path)
    sound = open_samples(path)
    assert isinstance(sound, LongSound)
    assert len(sound) == len(whole)
    for part in (slice(0, 10), slice(31_000, 70_001), slice(None), slice(-5, None), slice(90_000, 90_000)):
        np.testing.assert_allclose(sound[part], whole[part], atol=1e-5)
    assert len(sound._held) <= 2
    if suffix in ("wav", "flac"):
        assert sounding(sound) == pytest.approx(sounding(whole), abs=160)  # 10 ms
    with pytest.raises(ValueError, match="step=2"):
        sound[::2]


def test_a_short_file_is_an_array(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.1), 16_000)
    assert isinstance(open_samples(tmp_path / "a.wav"), np.ndarray)
