"""TFLite Model Metadata: what a .tflite file says of itself, in the form that MediaPipe and Android Studio read.

The flatbuffer's layout is the one of ``metadata_schema.fbs`` (google-ai-edge/mediapipe, mediapipe/tasks/
metadata); fields are written by their place in it, so that no generated code is needed. Labels and
other files travel as a zip archive behind the model, as the format wants it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from tfaudiotl.backbones.scores import check_background, class_thresholds
from tfaudiotl.errors import ExportError
from tfaudiotl.tflite.graph import Graph

LABELS = "labels.txt"
SETTINGS = "tfaudiotl.json"  # what this package needs beyond the format: the front-end of patches models
_ENTRY, _IDENTIFIER = b"TFLITE_METADATA", b"M001"
_AUDIO, _THRESHOLD, _AXIS_LABELS = 4, 3, 2  # members of the schema's unions and enumerations
_PARSER = "1.3.0"  # the schema version that brought AudioProperties


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself.

    Attributes:
        name: of the model.
        description: what it hears, in a sentence or two.
        version: of the model, such as "1.0".
        author: who made it.
        license: of the model, such as "Apache-2.0".
        labels: class names in output order; empty for embeddings.
        locales: the labels in other languages: "de" -> names in the same order.
        sample_rate: Hz.
        channels: of the sound.
        score_threshold: scores below it are not reported, or None. One for all classes, which MediaPipe reads too.
        thresholds: the score from which each class is heard: a mapping from class name to score, such as
            ``choose_thresholds`` gives (other classes: 0.5), or one for each label in their order; None without. In
            ``tfaudiotl.json``, since the format has no place for it.
        background: the label that is no sound of interest, or None; likewise.
        settings: further facts, JSON-ready; ``tfaudiotl.json`` in the file.
    """

    name: str = ""
    description: str = ""
    version: str = "1"
    author: str = ""
    license: str = ""
    labels: tuple[str, ...] = ()
    locales: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sample_rate: int = 16_000
    channels: int = 1
    score_threshold: float | None = None
    thresholds: Mapping[str, Any] | Sequence[Any] | None = None
    background: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for locale, names in self.locales.items():
            if len(names) != len(self.labels):
                raise ValueError(f"locales[{locale!r}]: {len(names)} names for {len(self.labels)} labels")
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold={self.score_threshold!r}: allowed are None and 0 to 1")
        if self.thresholds is not None:
            class_thresholds(self.thresholds, self.labels or tuple(map(str, self.thresholds)), "thresholds")
        if self.background is not None and self.labels:
            check_background(self.background, self.labels)
        if any("\n" in name or "\r" in name for name in self.labels):
            raise ValueError("labels: a name with a line break cannot be kept in a list of lines")

    def all_settings(self) -> dict[str, Any]:
        """``settings`` with the thresholds, in the labels' order, and the background: what ``tfaudiotl.json`` holds."""
        own: dict[str, Any] = {}
        if self.thresholds is not None:
            own["thresholds"] = list(class_thresholds(self.thresholds, self.labels, "thresholds"))
        if self.background is not None:
            own["background"] = check_background(self.background, self.labels)
        return {**self.settings, **own}


def write_metadata(graph: Graph, metadata: Metadata) -> bytes:
    """The file's bytes with ``metadata`` in it, in place of what it had.

    Args:
        graph: a file with one input and one output; its metadata is changed.
        metadata: what to write.

    Raises:
        ExportError: as many labels as outputs are needed, or none.
    """
    outputs = graph.shape(graph.outputs[0])[-1]
    if metadata.labels and len(metadata.labels) != outputs:
        raise ExportError(f"{len(metadata.labels)} labels for a file with {outputs} outputs")
    graph.set_metadata(_ENTRY, _packed(metadata, graph), description=metadata.name)
    return _with_files(graph.content, metadata)


def _with_files(content: bytes, metadata: Metadata) -> bytes:
    files = {_labels_file(locale): "".join(f"{name}\n" for name in names) for locale, names in _all_labels(metadata)}
    if settings := metadata.all_settings():
        files[SETTINGS] = json.dumps(settings, indent=1)
    if not files:
        return content
    archive = io.BytesIO(content)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as out:
        for name, text in files.items():
            out.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)  # a fixed date: same model, same bytes
    return archive.getvalue()


def _all_labels(metadata: Metadata) -> list[tuple[str, Sequence[str]]]:
    return [("", metadata.labels), *metadata.locales.items()] if metadata.labels else []


def _labels_file(locale: str) -> str:
    return f"labels_{locale}.txt" if locale else LABELS


def _packed(metadata: Metadata, graph: Graph) -> bytes:
    """The metadata flatbuffer; the numbers are the fields' places in the schema's tables."""
    b = flatbuffers.Builder(1024)
    audio = _table(b, {0: ("uint32", metadata.sample_rate), 1: ("uint32", metadata.channels)})
    content = _table(b, {0: ("uint8", _AUDIO), 1: ("table", audio)})
    taken = _table(
        b,
        {
            0: ("table", b.CreateString(graph.name(graph.inputs[0]))),
            1: ("table", b.CreateString(_input_text(metadata, graph))),
            3: ("table", content),
        },
    )
    given = _table(b, _output_fields(b, metadata))
    subgraph = _table(b, {2: ("table", _vector(b, [taken])), 3: ("table", _vector(b, [given]))})
    texts = {0: metadata.name, 1: metadata.description, 2: metadata.version, 4: metadata.author, 5: metadata.license}
    fields = {place: ("table", b.CreateString(text)) for place, text in texts.items() if text}
    fields[3] = ("table", _vector(b, [subgraph]))
    if metadata.all_settings():
        settings = _associated(b, SETTINGS, "Settings of tfaudiotl.", 1, "")
        fields[6] = ("table", _vector(b, [settings]))
    fields[7] = ("table", b.CreateString(_PARSER))
    b.Finish(_table(b, fields), _IDENTIFIER)
    return bytes(b.Output())


def _input_text(metadata: Metadata, graph: Graph) -> str:
    shape = graph.shape(graph.inputs[0])
    if len(shape) > 2:
        return f"A log-mel patch of {shape[1]} frames by {shape[2]} bands."
    seconds = shape[-1] / metadata.sample_rate
    return f"{shape[-1]} samples ({seconds:.3f} s) of mono sound at {metadata.sample_rate} Hz, in [-1, 1]."


def _output_fields(b: flatbuffers.Builder, metadata: Metadata) -> dict[int, tuple[str, Any]]:
    if not metadata.labels:
        return {
            0: ("table", b.CreateString("embedding")),
            1: ("table", b.CreateString("The embedding of the sound.")),
        }
    files = [_associated(b, _labels_file(locale), "Class names.", _AXIS_LABELS, locale)
             for locale, _ in _all_labels(metadata)]  # fmt: skip
    fields = {
        0: ("table", b.CreateString("scores")),
        1: ("table", b.CreateString("The score of each class, 0 to 1.")),
        6: ("table", _vector(b, files)),
    }
    if metadata.score_threshold is not None:
        options = _table(b, {0: ("float32", metadata.score_threshold)})
        unit = _table(b, {0: ("uint8", _THRESHOLD), 1: ("table", options)})
        fields[4] = ("table", _vector(b, [unit]))
    return fields


def _associated(b: flatbuffers.Builder, name: str, description: str, kind: int, locale: str) -> int:
    fields = {
        0: ("table", b.CreateString(name)),
        1: ("table", b.CreateString(description)),
        2: ("int8", kind),
    }
    if locale:
        fields[3] = ("table", b.CreateString(locale))
    return _table(b, fields)


def _table(b: flatbuffers.Builder, fields: dict[int, tuple[str, Any]]) -> int:
    b.StartObject(max(fields, default=-1) + 1)
    for place, (kind, value) in fields.items():
        if kind == "table":
            b.PrependUOffsetTRelativeSlot(place, value, 0)
        elif kind == "float32":
            b.PrependFloat32Slot(place, value, 0.0)
        else:
            getattr(b, f"Prepend{kind.capitalize()}Slot")(place, value, 0)
    return b.EndObject()


def _vector(b: flatbuffers.Builder, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def read_metadata(content: bytes) -> Metadata | None:
    """What a .tflite file says of itself; None if it says nothing in this format."""
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == _ENTRY:
            data = model.Buffers(entry.Buffer()).DataAsNumpy()
            return _unpacked(bytes(data), read_files(content))
    return None


def label_lines(content: bytes) -> tuple[str, ...]:
    """Class names of a file with one on each line; a line ends with a line feed, and nothing else parts names."""
    text = content.decode("utf-8").removesuffix("\n")
    return tuple(line.removesuffix("\r") for line in text.split("\n")) if text else ()


def read_files(content: bytes) -> dict[str, bytes]:
    """The files packed behind a model; none if there is no archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        return {}


def _unpacked(data: bytes, files: dict[str, bytes]) -> Metadata:
    root = _Reader(data, int.from_bytes(data[:4], "little"))
    subgraph = root.tables(3)[0]
    taken, given = subgraph.tables(2), subgraph.tables(3)
    labels: dict[str, tuple[str, ...]] = {}
    for file in given[0].tables(6) if given else []:
        if file.number(2, number_types.Int8Flags) == _AXIS_LABELS and file.text(0) in files:
            labels[file.text(3)] = label_lines(files[file.text(0)])
    content = taken[0].table(3) if taken else None
    audio = content.table(1) if content and content.number(0, number_types.Uint8Flags) == _AUDIO else None
    units = [unit for unit in (given[0].tables(4) if given else []) if _is_threshold(unit)]
    options = units[0].table(1) if units else None
    first = next(iter(labels.values()), ())
    told = json.loads(files[SETTINGS]) if SETTINGS in files else {}
    return Metadata(
        name=root.text(0),
        description=root.text(1),
        version=root.text(2),
        author=root.text(4),
        license=root.text(5),
        labels=labels.pop("", first),
        locales={locale: names for locale, names in labels.items() if len(names) == len(first)},
        sample_rate=audio.number(0, number_types.Uint32Flags) if audio else 16_000,
        channels=audio.number(1, number_types.Uint32Flags) if audio else 1,
        score_threshold=options.number(0, number_types.Float32Flags) if options else None,
        thresholds=told.pop("thresholds", None),
        background=told.pop("background", None),
        settings=told,
    )


def _is_threshold(unit: _Reader) -> bool:
    return unit.number(0, number_types.Uint8Flags) == _THRESHOLD


class _Reader:
    """Fields of one table, by their place in the schema."""

    def __init__(self, data: bytes, position: int):
        self._data, self._table = data, Table(data, position)

    def _offset(self, place: int) -> int:
        return self._table.Offset(4 + 2 * place)

    def number(self, place: int, flags: Any) -> Any:
        offset = self._offset(place)
        return self._table.Get(flags, offset + self._table.Pos) if offset else 0

    def text(self, place: int) -> str:
        offset = self._offset(place)
        return self._table.String(offset + self._table.Pos).decode("utf-8") if offset else ""

    def table(self, place: int) -> _Reader | None:
        offset = self._offset(place)
        return _Reader(self._data, self._table.Indirect(offset + self._table.Pos)) if offset else None

    def tables(self, place: int) -> list[_Reader]:
        offset = self._offset(place)
        if not offset:
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [_Reader(self._data, self._table.Indirect(start + 4 * index)) for index in range(count)]
