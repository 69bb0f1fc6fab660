"""Decoded clips in TFRecord files, for TPUs, several hosts and cloud buckets (``gs://``, by way of tf.io.gfile).

A folder holds ``records.json``, written last, so that its presence says that the folder is whole, and its shards.
The shards of every writing have names of their own: those that are there are removed once the new index is in place.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfaudiotl._seeds import derived_seed
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.audio.waveform import SAMPLE_RATE
from tfaudiotl.augment.chain import augment_dataset
from tfaudiotl.augment.layers import Augmentation
from tfaudiotl.data.dataset import make_dataset
from tfaudiotl.data.table import Table
from tfaudiotl.errors import AudioError, OnError, check_choice, check_number

SampleType = Literal["float32", "int16"]

INDEX = "records.json"
SHARD_BYTES = 128 << 20  # of a shard: TensorFlow's guide asks for 100 MB to 200 MB
_READ_BATCH = 32
_SHARD = re.compile(r"part-\d{5}-of-\d{5}-[0-9a-f]{8}\.tfrecord(\.tmp)?")  # every file that is ours beside the index
_DTYPES: dict[SampleType, int] = {"float32": 4, "int16": 2}  # bytes of a sample


@dataclass(frozen=True)
class RecordsInfo:
    """What ``records.json`` says.

    Attributes:
        rows: Number of waveforms.
        samples: Length of each.
        sample_rate: Hz.
        dtype: "float32" or "int16".
        class_names: The classes, in the order of the targets' columns.
        multi_label: Whether a row may have any number of them.
        weighted: Whether rows have sample weights.
        shards: Names of the files.
        skipped: What was left out: (path, reason).
    """

    rows: int
    samples: int
    sample_rate: int
    dtype: SampleType
    class_names: list[str]
    multi_label: bool
    weighted: bool
    shards: list[str]
    skipped: list[tuple[str, str]]


def write_records(
    clips: Table,
    folder: str | os.PathLike[str],
    *,
    shards: int | None = None,
    window_seconds: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    dtype: SampleType = "float32",
    on_error: OnError = "raise",
    overwrite: bool = False,
    progress: OnProgress = ignore,
) -> RecordsInfo:
    """Decodes clips once and writes them as TFRecord files.

    Args:
        clips: What to write.
        folder: Where; a local path, ``gs://bucket/folder`` and the like.
        shards: Number of files, rows going to them in turn; None makes files of about 128 MB, at least one per
            core. For several hosts, a multiple of their number.
        window_seconds: As in ``Clips.dataset``.
        sample_rate: As in ``Clips.dataset``.
        dtype: "float32", or "int16": half the size, 16 bits, clipped to [-1, 1].
        on_error: As in ``Clips.dataset``; what is left out is listed in the result.
        overwrite: Whether to replace records that are there; they stay until the new ones are whole.
        progress: called after each batch.

    Returns:
        What was written.

    Raises:
        FileExistsError: There are records, and ``overwrite`` is False.
        ValueError: An argument is out of range.
        tf.errors.OpError: A sound cannot be used (``on_error="raise"``), or the place cannot be written to. What was
            there is untouched, as after any other error.
    """
    check_choice("dtype", dtype, SampleType)
    if shards is not None:
        check_number("shards", shards, least=1, whole=True)
    root, log = os.fspath(folder), list[AudioError]()
    index = _join(root, INDEX)
    if tf.io.gfile.exists(index) and not overwrite:
        raise FileExistsError(f"{root} holds records; overwrite=True replaces them")
    dataset = make_dataset(
        clips,
        batch_size=_READ_BATCH,
        window_seconds=window_seconds,
        sample_rate=sample_rate,
        on_error=on_error,
        log=log,
    )
    samples = int(dataset.element_spec[0].shape[1])
    total = len(clips.windows(window_seconds if window_seconds is not None else samples / sample_rate))
    count = shards or max(os.cpu_count() or 1, -(-total * samples * _DTYPES[dtype] // SHARD_BYTES))
    count = min(count, total) if shards is None else count
    run = secrets.token_hex(4)
    names = [f"part-{number:05d}-of-{count:05d}-{run}.tfrecord" for number in range(count)]
    tf.io.gfile.makedirs(root)
    written = 0
    try:
        with ExitStack() as stack:
            writers = [stack.enter_context(tf.io.TFRecordWriter(_join(root, f"{name}.tmp"))) for name in names]
            for batch in dataset.as_numpy_iterator():
                for row in zip(*batch, strict=True):
                    writers[written % count].write(_encode(row, dtype))
                    written += 1
                progress(Progress("Writing records", written, total))
        for name in names:
            tf.io.gfile.rename(_join(root, f"{name}.tmp"), _join(root, name), overwrite=True)
        info = RecordsInfo(
            rows=written,
            samples=samples,
            sample_rate=sample_rate,
            dtype=dtype,
            class_names=list(clips.class_names),
            multi_label=clips.multi_label,
            weighted=len(dataset.element_spec) == 3,
            shards=names,
            skipped=[(error.path, error.reason) for error in [*clips.skipped, *log]],
        )
        with tf.io.gfile.GFile(f"{index}.tmp", "w") as file:
            file.write(json.dumps(asdict(info), indent=1))
        tf.io.gfile.rename(f"{index}.tmp", index, overwrite=True)
    except BaseException:
        _remove(root, [*names, *(f"{name}.tmp" for name in names), f"{INDEX}.tmp"])
        raise
    # What the folder still has of earlier writings, finished or killed. By its name: an index may say anything.
    _remove(root, [name for name in tf.io.gfile.listdir(root) if _SHARD.fullmatch(name) and name not in names])
    return info


def _remove(root: str, names: Sequence[str]) -> None:
    for name in names:
        with suppress(tf.errors.NotFoundError):
            tf.io.gfile.remove(_join(root, name))


def read_info(folder: str | os.PathLike[str]) -> RecordsInfo:
    """What a folder of records holds.

    Raises:
        ValueError: It holds none, they were not finished, or the index is damaged.
    """
    index = _join(os.fspath(folder), INDEX)
    if not tf.io.gfile.exists(index):
        raise ValueError(f"folder={os.fspath(folder)!r} has no {INDEX}: no records, or their writing did not finish")
    with tf.io.gfile.GFile(index) as file:
        text = file.read()
    try:
        content = json.loads(text)
        info = RecordsInfo(**{**content, "skipped": [tuple(pair) for pair in content["skipped"]]})
        foreign = [name for name in info.shards if not _SHARD.fullmatch(name)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"folder={os.fspath(folder)!r}: {INDEX} is not what write_records wrote: {error!r}") from None
    if foreign:
        raise ValueError(f"folder={os.fspath(folder)!r}: {INDEX} names {foreign[0]!r}, which is no file of records")
    return info


def read_records(
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int = 0,
    buffer: int = 1_024,
    drop_remainder: bool = False,
    repeat: bool = False,
    augment: bool | Augmentation | Sequence[Augmentation] = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of (waveform, target), and weights if there are any, as ``Clips.dataset`` gives them.

    Args:
        folder: Where ``write_records`` wrote.
        batch_size: Rows of a batch.
        shuffle: Whether to draw a new order of files, and of rows within ``buffer``, for every epoch.
        seed: Of the order, and of the augmentation.
        buffer: Rows held for shuffling.
        drop_remainder: As in ``Clips.dataset``.
        repeat: As in ``Clips.dataset``.
        augment: As in ``Clips.dataset``.
        shard: (number, count): this host's files, every ``count``-th from ``number``.

    Raises:
        ValueError: There are no records, or fewer files than hosts.
    """
    info, root = read_info(folder), os.fspath(folder)
    names = info.shards
    if shard is not None:
        number, count = shard
        if not 0 <= number < count <= len(names):
            raise ValueError(f"shard={shard!r}: expected (number, count), at most as many as the {len(names)} files")
        names = names[number::count]
    files = tf.data.Dataset.from_tensor_slices([_join(root, name) for name in names])
    if shuffle:
        files = files.shuffle(
            len(names), seed=derived_seed("records shuffle", seed, "files"), reshuffle_each_iteration=True
        )
    parallel = min(os.cpu_count() or 1, len(names))
    dataset = files.interleave(
        tf.data.TFRecordDataset, cycle_length=len(names), num_parallel_calls=parallel, deterministic=True
    )
    if shuffle:
        dataset = dataset.shuffle(
            buffer, seed=derived_seed("records shuffle", seed, "rows"), reshuffle_each_iteration=True
        )
    if repeat:
        dataset = dataset.repeat()
    features = {
        "waveform": tf.io.FixedLenFeature((), tf.string),
        "target": tf.io.FixedLenFeature((len(info.class_names),), tf.float32),
        "weight": tf.io.FixedLenFeature((), tf.float32),
    }

    def parse(serialised: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parsed = tf.io.parse_example(serialised, features)
        stored = tf.io.decode_raw(parsed["waveform"], tf.as_dtype(info.dtype))
        waveforms = tf.cast(stored, tf.float32) / (32_768.0 if info.dtype == "int16" else 1.0)
        waveforms = tf.ensure_shape(waveforms, (None, info.samples))
        return (waveforms, parsed["target"], parsed["weight"])[: 3 if info.weighted else 2]

    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder)
    dataset = dataset.map(parse, num_parallel_calls=os.cpu_count() or 1, deterministic=True)
    return augment_dataset(dataset, augment, sample_rate=info.sample_rate, seed=seed).prefetch(2)


def _encode(row: tuple[Any, ...], dtype: SampleType) -> bytes:
    waveform, target, weight = (*row, np.float32(1))[:3]
    if dtype == "int16":
        waveform = np.clip(np.round(waveform * 32_768), -32_768, 32_767)
    stored = np.ascontiguousarray(waveform, np.dtype(dtype).newbyteorder("<")).tobytes()
    features = {
        "waveform": tf.train.Feature(bytes_list=tf.train.BytesList(value=[stored])),
        "target": tf.train.Feature(float_list=tf.train.FloatList(value=target)),
        "weight": tf.train.Feature(float_list=tf.train.FloatList(value=[weight])),
    }
    encoded: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return encoded


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"  # also for gs:// on Windows
