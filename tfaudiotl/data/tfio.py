"""Decoding and resampling as TensorFlow operations, with tensorflow-io: no Python runs while tf.data reads.

tensorflow-io's own resampler is not used: it has another length formula, and is 11 dB down at 7.5 kHz on the way from
44.1 to 16 kHz. A resampler that multiplies frames with a matrix of a windowed sinc takes its place.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tensorflow as tf

from tfaudiotl.audio.containers import layout
from tfaudiotl.audio.files import AudioInfo, audio_info, span_frames
from tfaudiotl.audio.waveform import resampled_length
from tfaudiotl.data.table import listed
from tfaudiotl.errors import AudioError, check_choice

if TYPE_CHECKING:
    from tfaudiotl.data.table import Table

Decoder = Literal["auto", "tfio", "python"]

# (container, sample format) as libsndfile names them -> tensorflow-io's operation, its options, and
# their full scale. Its IOTensor, which could read a part of a file, is not used: calls that run at the same time share
# one resource, and now and then one gets the sound of another.
FORMATS: dict[tuple[str, str], tuple[str, dict[str, Any], float]] = {
    ("WAV", "PCM_16"): ("decode_wav", {"dtype": tf.int16}, 32_768.0),
    ("FLAC", "PCM_16"): ("decode_flac", {"dtype": tf.int16}, 32_768.0),
    ("OGG", "VORBIS"): ("decode_vorbis", {}, 1.0),
    ("MP3", "MPEG_LAYER_III"): ("decode_mp3", {}, 1.0),
}
_PASS, _STOP = 0.913, 1.0  # of half the lower rate: where soxr's "HQ" filter begins and ends to fall
_ATTENUATION = 110.0  # dB in the stop band
_BLOCK = 512  # samples that a frame moves by at least, so that frames overlap little
_LARGEST = 1 << 22  # numbers in the matrix; rates such as 44,101 Hz need more


class GraphResampler:
    """Changes the rate of (samples,) as one product of frames with a matrix; no delay.

    The filter is a sinc under a Kaiser window, for -110 dB beyond half the lower rate.

    Args:
        from_rate: Hz.
        to_rate: Hz.

    Raises:
        ValueError: the rates have so small a common divisor that the matrix would be large.
    """

    def __init__(self, from_rate: int, to_rate: int):
        divisor = math.gcd(from_rate, to_rate)
        times = -(-_BLOCK * divisor // from_rate)
        self.step, self.made = times * from_rate // divisor, times * to_rate // divisor  # samples in and out of a frame
        nyquist = min(from_rate, to_rate) / from_rate / 2  # cycles per sample
        # Kaiser's formulas: J. F. Kaiser, "Nonrecursive digital filter design using the I0-sinh window", 1974.
        beta = 0.1102 * (_ATTENUATION - 8.7)
        width = (_STOP - _PASS) * nyquist
        self.half = math.ceil((_ATTENUATION - 7.95) / (14.36 * width) / 2)
        self.from_rate, self.to_rate = from_rate, to_rate
        if (self.step + 2 * self.half) * self.made > _LARGEST:
            raise ValueError(f"{from_rate} Hz to {to_rate} Hz cannot be done in the graph: too few common divisors")
        taken, given = np.arange(self.step + 2 * self.half)[:, None], np.arange(self.made)[None]
        distance = taken - self.half - given * (from_rate / to_rate)
        cutoff = (_PASS + _STOP) / 2 * nyquist
        inside = np.clip(1 - (distance / self.half) ** 2, 0, None)
        window = np.where(np.abs(distance) < self.half, np.i0(beta * np.sqrt(inside)) / np.i0(beta), 0)
        self._matrix = (2 * cutoff * np.sinc(2 * cutoff * distance) * window).astype(np.float32)

    def __call__(self, waveform: tf.Tensor) -> tf.Tensor:
        """float32 (samples,) -> (ceil(samples * to_rate / from_rate),)."""
        samples = tf.shape(waveform)[0]
        length = -(-samples * self.made // self.step)
        frames = -(-length // self.made)
        after = frames * self.step + self.half - samples
        padded = tf.pad(waveform, [[self.half, tf.maximum(after, 0)]])
        framed = tf.signal.frame(padded, self.step + 2 * self.half, self.step)[:frames]
        return tf.reshape(framed @ self._matrix, (-1,))[:length]


class GraphDecoder:
    """Rows of a table as waveforms, decoded by tensorflow-io.

    Args:
        rows: files of ``FORMATS``, read as the mean of their channels.
        samples: length of every waveform, zeros at its end.
        sample_rate: of the result, Hz.

    Raises:
        ValueError: tensorflow-io cannot be used, or not for these files; the message says why.
    """

    def __init__(self, rows: Table, samples: int, sample_rate: int):
        reason = why_not(rows, sample_rate)
        if reason:
            raise ValueError(f"decoder='tfio': {reason}")
        infos = {path: audio_info(path) for path in dict.fromkeys(rows.paths)}
        spans = [
            _span(infos[path], float(start), float(end), sample_rate)
            for path, start, end in zip(rows.paths, rows.starts, rows.ends, strict=True)
        ]
        kinds = sorted({_kind(info) for info in infos.values()})
        self._kinds = [
            (*FORMATS[container, subtype], _resampler(rate, sample_rate)) for container, subtype, rate in kinds
        ]
        self._kind_of = tf.constant([kinds.index(_kind(infos[path])) for path in rows.paths])
        self._paths = tf.constant([os.fsencode(path) for path in rows.paths])
        self._spans = tf.constant(spans, tf.int64)
        self._samples = samples

    def read(self, row: tf.Tensor) -> tf.Tensor:
        """Row number -> float32 (samples,)."""
        path, span = self._paths[row], self._spans[row]
        branches = [lambda kind=kind: self._decode(path, span, *kind) for kind in self._kinds]
        waveform = tf.switch_case(self._kind_of[row], branches) if len(branches) > 1 else branches[0]()
        waveform = waveform[span[2] : span[2] + span[3]][: self._samples]
        waveform = tf.pad(waveform, [[0, self._samples - tf.shape(waveform)[0]]])
        waveform.set_shape((self._samples,))
        return waveform

    def _decode(
        self, path: tf.Tensor, span: tf.Tensor, operation: str, options: dict[str, Any], scale: float, resampler: Any
    ) -> tf.Tensor:
        import tensorflow_io as tfio

        sound = getattr(tfio.audio, operation)(tf.io.read_file(path), **options)[span[0] : span[1]]
        waveform = tf.reduce_mean(tf.cast(sound, tf.float32), axis=1) / scale
        return waveform if resampler is None else resampler(waveform)


def why_not(rows: Table, sample_rate: int) -> str:
    """Why these rows cannot be decoded in the graph; "" where they can."""
    if rows._waveforms is not None:
        return "these sounds are in memory"
    if rows.channel is not None:
        return "it reads the mean of the channels only"
    if not _works():
        return "tensorflow-io is not installed, or not for this TensorFlow (the tfio extra is for 2.16)"
    try:
        infos = [audio_info(path) for path in dict.fromkeys(rows.paths)]
        others = [info.path for info in infos if (info.format, info.subtype) not in FORMATS]
        odd = [info.path for info in infos if layout(info.path, os.stat(info.path)).parts]
        for rate in {info.sample_rate for info in infos}:
            _resampler(rate, sample_rate)
    except (AudioError, ValueError) as error:
        return str(error)
    if odd:
        return f"it does not put headers right, nor reads files that were joined: {listed(odd)}"
    if others:
        return f"it decodes {listed(' '.join(kind) for kind in FORMATS)}, not {listed(others)}"
    return ""


def _works() -> bool:
    """Whether tensorflow-io's operations load; on another TensorFlow than its own it imports, and they do not."""
    try:
        import tensorflow_io as tfio

        tfio.audio.decode_wav(tfio.audio.encode_wav(tf.zeros((1, 1), tf.int16), rate=8_000), dtype=tf.int16)
    except Exception:  # it raises several kinds, NotImplementedError among them
        return False
    return True


def _kind(info: AudioInfo) -> tuple[str, str, int]:
    return info.format, info.subtype, info.sample_rate


def _resampler(from_rate: int, to_rate: int) -> GraphResampler | None:
    return None if from_rate == to_rate else GraphResampler(from_rate, to_rate)


def _span(info: AudioInfo, start: float, end: float, to_rate: int) -> tuple[int, int, int, int]:
    """First frame of a file to decode, where to stop, the resampled samples to skip, and those to keep."""
    rate = info.sample_rate
    first, last, lead, stop = span_frames(info.path, start, end, info.frames, rate, to_rate)
    return (first - lead, stop, lead * to_rate // rate, resampled_length(last - first, rate, to_rate))


def in_graph(decoder: Decoder, rows: Table, sample_rate: int) -> bool:
    """Whether to decode in the graph: as asked ("tfio", "python"), or for "auto" where that is the faster way."""
    check_choice("decoder", decoder, Decoder)
    return decoder == "tfio" or (decoder == "auto" and not why_not(rows, sample_rate) and _quicker(rows, sample_rate))


def _quicker(rows: Table, sample_rate: int) -> bool:
    """Whole files that need neither decompression nor another rate; all else Python threads do 2 to 10 times as fast.

    Of a part of a file tensorflow-io would read the whole.
    """
    infos = {path: audio_info(path) for path in dict.fromkeys(rows.paths)}
    if any(info.format != "WAV" or info.sample_rate != sample_rate for info in infos.values()):
        return False
    lengths = np.array([infos[path].duration for path in rows.paths])
    return not (rows.starts > 0).any() and not (rows.ends < lengths).any()
