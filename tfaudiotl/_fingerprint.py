"""What a result was made from: whatever is taken up again from disk carries it, and is left where it differs.

One definition for every cache, store, checkpoint and search. ``model_parts`` and ``versions`` say what there is to know
of a network and this installation, ``clips_parts`` (beside the table) of clips; ``fingerprint`` makes one text of them
and of any options.
"""

from __future__ import annotations

import os
import types
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tfaudiotl import _files
from tfaudiotl._version import __version__
from tfaudiotl.errors import AudioError

_EDGE = 1 << 16  # bytes at a file's beginning and end that are looked at
_PACKAGES = ("tensorflow", "keras", "numpy", "soundfile", "soxr", "ai-edge-litert")

State = tuple[int, int, str] | None  # a file's size, time and edges; None: it is not there


def fingerprint(**parts: Any) -> str:
    """SHA-256 of named parts, each as ``plain`` gives it, in hexadecimal digits."""
    return _files.fingerprint(**{name: plain(part) for name, part in parts.items()})


@cache
def versions() -> dict[str, str]:
    """The versions of this package and of those that compute for it."""
    found = {"tfaudiotl": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


# Sounds


def file_state(path: str | os.PathLike[str]) -> State:
    """Size, time of the last change, and a digest of beginning and end: two files put in each other's place differ."""
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            edges = file.read(_EDGE)
            if stat.st_size > 2 * _EDGE:
                file.seek(-_EDGE, os.SEEK_END)
            edges += file.read(_EDGE)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, _files.sha256(edges)


def check_unchanged(path: str, state: State) -> None:
    """AudioError for a file that is no longer what it was when its state was taken."""
    try:
        stat = os.stat(path)
    except OSError:
        return  # a file that is not there has failed to be read already
    if state is not None and (stat.st_size, stat.st_mtime_ns) != state[:2]:
        raise AudioError(path, "the file was changed while it was in use; start again when it is whole")


def unchanged(job: Callable[[], np.ndarray], path: str, state: State) -> np.ndarray:
    """What ``job`` reads from a file; AudioError if it is no longer the file whose state was taken."""
    waveform = job()
    check_unchanged(path, state)
    return waveform


# Networks


def model_parts(model: Any) -> dict[str, str]:
    """Digests of a functional Keras model: its layers and how they hang together, all weights, files behind layers.

    Names that Keras counts up, and which layers are frozen, make no difference.
    """
    names = {layer.name: f"layer {number}" for number, layer in enumerate(model.layers)}
    return {"network": fingerprint(config=_plain_config(model.get_config(), names)), **layers_parts(model.layers)}


def layers_parts(layers: Iterable[Any]) -> dict[str, str]:
    """Digests of layers by themselves: settings with the precision, weights, files behind them."""
    layers = list(layers)
    return {
        "layers": fingerprint(configs=[[type(layer).__name__, _own_config(layer)] for layer in layers]),
        "weights": fingerprint(values=[[np.asarray(value) for value in layer.variables] for layer in layers]),
        "assets": fingerprint(folders=[_folder_parts(layer) for layer in layers]),
    }


def _own_config(layer: Any) -> Any:
    return _plain_config({key: part for key, part in layer.get_config().items() if key not in ("name", "trainable")})


def _folder_parts(layer: Any) -> dict[str, str] | None:
    """Digests of the files of a layer that computes with something else than Keras's variables."""
    folder = getattr(layer, "assets_folder", None)
    if folder is None:
        return None
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _files.file_digest(path) for path in files}


def _plain_config(value: Any, names: Mapping[str, str] | None = None) -> Any:
    """A Keras config without what differs between two equal ones: counted names, ids, what is frozen."""
    if isinstance(value, Mapping):
        left_out = {"shared_object_id"}
        if {"name", "trainable"} <= set(value):  # a layer's or a model's; a precision has a name too
            left_out |= {"name", "trainable"}
        return {str(key): _plain_config(part, names) for key, part in value.items() if key not in left_out}
    if isinstance(value, (list, tuple)):
        return [_plain_config(part, names) for part in value]
    if isinstance(value, str):
        return (names or {}).get(value, value)
    return plain(value)


# Anything


def plain(value: Any, _within: tuple[int, ...] = ()) -> Any:
    """A value as JSON can hold it, equal for equal values and, as far as can be seen, for no others.

    Arrays come as digests; functions with their code, defaults and what they refer to in their module; Keras layers
    with their settings, weights and the files that they read. What cannot be taken apart is told by its ``repr``.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in "biufU" else repr(value)
    if isinstance(value, np.ndarray):
        content = value.tolist() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
        kept = plain(content, _within) if value.dtype.hasobject else _files.sha256(content)
        return {"dtype": str(value.dtype), "shape": list(value.shape), "content": kept}
    if isinstance(value, bytes):
        return {"bytes": _files.sha256(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if id(value) in _within:
        return "itself"
    within = (*_within, id(value))
    if isinstance(value, Mapping):
        return {"pairs": sorted([[plain(key, within), plain(part, within)] for key, part in value.items()], key=repr)}
    if isinstance(value, (list, tuple)):
        return [plain(part, within) for part in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((plain(part, within) for part in value), key=repr)}
    return _plain_object(value, within)


def _plain_object(value: Any, within: tuple[int, ...]) -> Any:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "class": kind,
            "fields": {field.name: plain(getattr(value, field.name), within) for field in fields(value)},
        }
    if isinstance(value, partial):
        return {"partial": [plain(part, within) for part in (value.func, value.args, value.keywords)]}
    if isinstance(value, types.FunctionType):
        return _plain_function(value, within)
    if isinstance(value, types.MethodType):
        return {"method": [plain(value.__func__, within), plain(value.__self__, within)]}
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    if hasattr(value, "get_config"):
        return {
            "class": kind,
            "config": _plain_config(value.get_config()),
            "weights": [plain(np.asarray(variable)) for variable in getattr(value, "weights", ())],
            "files": [file_state(file) for file in getattr(value, "files", ())],
            "steps": [plain(step, within) for step in getattr(value, "steps", ())],
        }
    if type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):
        return {"class": kind, "attributes": plain(vars(value), within)}
    return {"class": kind, "repr": repr(value)}


def _plain_function(function: types.FunctionType, within: tuple[int, ...]) -> dict[str, Any]:
    name = f"{function.__module__}.{function.__qualname__}"
    cells = [_content(cell) for cell in function.__closure__ or ()]
    used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    own = {
        name: part
        for name, part in used.items()
        if not isinstance(part, types.FunctionType) or part.__module__ == function.__module__
    }
    return {
        "function": name,
        "code": _plain_code(function.__code__, within),
        "defaults": plain([function.__defaults__, function.__kwdefaults__, cells], within),
        "globals": {name: plain(part, within) for name, part in own.items()},
    }


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _names(code: types.CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {*code.co_names, *(name for part in inner for name in _names(part))}


def _plain_code(code: types.CodeType, within: tuple[int, ...]) -> list[Any]:
    consts = [_plain_code(c, within) if isinstance(c, types.CodeType) else plain(c, within) for c in code.co_consts]
    return [plain(code.co_code), list(code.co_names), list(code.co_varnames), consts]


def content_keys(paths: Sequence[str], held: Mapping[str, np.ndarray] | None = None) -> list[Hashable]:
    """One key per sound, equal where the files have the same bytes (or arrays the same samples).

    Files are compared by size first, then by their beginnings, and only what is still equal is read whole. What
    cannot be read is equal to nothing else.

    Args:
        paths: (rows,) files, or names in ``held``.
        held: Sounds in memory by name.
    """
    unique = list(dict.fromkeys(paths))
    if held is not None:
        samples = {path: _files.sha256(held[path].tobytes()) for path in unique}
        return [samples[path] for path in paths]
    keys: dict[str, tuple[Hashable, ...]] = dict.fromkeys(unique, ())
    tests: tuple[Callable[[str], Hashable], ...] = (os.path.getsize, _head_digest, _files.file_digest)
    for test in tests:
        for path in unique:
            try:
                keys[path] = (*keys[path], test(path))
            except (OSError, ValueError):
                keys[path] = (*keys[path], os.path.abspath(path))
        shared = Counter(keys[path] for path in unique)
        unique = [path for path in unique if shared[keys[path]] > 1]
    return [keys[path] for path in paths]


def _head_digest(path: str) -> str:
    with open(path, "rb") as file:
        return _files.sha256(file.read(_EDGE))
