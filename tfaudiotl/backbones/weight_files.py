"""Weights from where people have them: TF Hub, a SavedModel folder or archive, a Keras weights file."""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl._download import ARCHIVES, is_archive, unpack
from tfaudiotl.backbones.weight_sources import (
    Found,
    Published,
    by_hand,
    first_that_fits,
    opened_handle,
    published_sources,
)
from tfaudiotl.errors import WeightsError

CLASS_NAMES = "class_names"  # key of the names in an .npz, joined by line breaks as UTF-8
FILES = (".h5", ".npz", ".ckpt")
COMPILED = ("optimizer", "loss", "metrics", "compile_")  # beginnings of what a compiled model's .weights.h5 has besides
REMOTE = ("http://", "https://", "gs://", "s3://", "hdfs://")


@dataclass(frozen=True)
class Forms:
    """A model's variables, each under the name that it has in the published forms of its weights.

    Attributes:
        saved_model: checkpoint key of TF Hub's SavedModel -> variable.
        leftover: prefixes of keys that the SavedModel may have beyond those.
        class_map: name of the SavedModel's CSV asset (``index,mid,display_name``) that lists the classes.
        keras2: path in a file of Keras 2 (``yamnet.h5``) -> variable.
        head: prefixes of names that such a file, or an ``.npz``, may have beyond the model's: of its classifier.
        slim: name in a TF-Slim checkpoint (``vggish_model.ckpt``) -> variable.
    """

    saved_model: Mapping[str, Any]
    leftover: tuple[str, ...] = ()
    class_map: str | None = None
    keras2: Mapping[str, Any] = field(default_factory=dict)
    head: tuple[str, ...] = ()
    slim: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """What was read: the values under the names of their form (none of a Keras 3 file), and the classes' names."""

    values: Mapping[str, np.ndarray]
    class_names: list[str]


def load_into(model: keras.Model, weights: str | Path, forms: Forms) -> Loaded:
    """Fills ``model`` from what a user gave; nothing is changed unless everything fits.

    Args:
        model: the Keras model.
        weights: TF Hub handle, SavedModel folder or archive, a file of the network's authors, ``.weights.h5`` or
            ``.npz``.
        forms: the names under which the model's variables are looked for.

    Raises:
        WeightsError: what was looked for, where, and what to do.
    """
    text = str(weights)
    if text.startswith(REMOTE):
        with saved_model_folder(text) as folder, errors_name(text):
            return load_path(model, folder, forms)
    path = Path(weights).expanduser()
    if not (path.exists() or is_checkpoint(path)):
        if text.endswith(FILES):
            raise WeightsError(f"weights={text!r}: no such file")
        raise WeightsError(
            f"weights={text!r}: neither a preset name, nor a TF Hub handle (https://...), nor an existing SavedModel "
            f"folder, archive ({', '.join(ARCHIVES)}), .weights.h5, .h5, .npz or .ckpt file"
        )
    with errors_name(text):
        return load_path(model, path, forms)


def load_published(
    model: keras.Model, published: Published, forms: Forms, check: Callable[[Mapping[str, np.ndarray]], None]
) -> tuple[Found, Loaded]:
    """Fills ``model`` with the published weights, from the first place whose copy fits and answers as they must.

    Args:
        model: the Keras model.
        published: where they are.
        forms: the names under which the model's variables are looked for.
        check: given the values after they were assigned: WeightsError if the model does not answer as published.

    Raises:
        WeightsError: every place with the reason why it failed, and what to do by hand.
    """

    def accept(path: Path) -> Loaded:
        loaded = load_path(model, path, forms)
        check(loaded.values)
        return loaded

    return first_that_fits(published_sources(published), accept, asked="weights='audioset'", advice=by_hand(published))


@contextmanager
def errors_name(weights: str, *, argument: str = "weights") -> Iterator[None]:
    """Errors inside the block name ``weights`` (or what ``argument`` says) as the caller typed it."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{argument}={weights!r}: {error}") from error


def load_path(model: keras.Model, path: Path, forms: Forms) -> Loaded:
    """Fills ``model`` from a file or folder; see ``load_into``. WeightsError without the name of the weights."""
    if is_archive(path):
        with tempfile.TemporaryDirectory(prefix="tfaudiotl-") as unpacked:
            return load_path(model, unpack(path, Path(unpacked)), forms)
    if path.is_dir():
        values = read_saved_model(path)
        assign(forms.saved_model, values, leftover_prefixes=forms.leftover)
        return Loaded(values, _class_names(path / "assets" / forms.class_map) if forms.class_map else [])
    if path.suffix == ".npz":
        return Loaded({}, load_npz(model, path, leftover_prefixes=forms.head))
    if path.suffix == ".h5":
        if forms.keras2 and (values := read_keras2(path)):
            assign(forms.keras2, values, leftover_prefixes=forms.head)
            return Loaded(values, [])
        load_h5(model, path)
        return Loaded({}, [])
    if forms.slim and is_checkpoint(path):
        values = read_slim_checkpoint(path, next(iter(forms.slim)).split("/")[0] + "/")
        assign(forms.slim, values)
        return Loaded(values, [])
    raise WeightsError("no SavedModel folder, archive, .weights.h5, .h5, .npz or .ckpt file of this network")


def npz_bytes(model: keras.Model, *, class_names: Sequence[str] = ()) -> bytes:
    """The model's variables in float16 as the content of an ``.npz``: the same bytes for the same values.

    Args:
        model: its layers' names and their variables' names are the keys ("layer1_conv/kernel").
        class_names: kept beside them.

    Raises:
        WeightsError: a value that float16 cannot hold.
    """
    with np.errstate(over="ignore"):  # an error below
        arrays: dict[str, Any] = {
            key: np.asarray(variable).astype(np.float16) for key, variable in npz_variables(model).items()
        }
    beyond = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if beyond:
        raise WeightsError(f"model {model.name!r}: float16 cannot hold the values of {', '.join(beyond)}")
    arrays[CLASS_NAMES] = np.frombuffer("\n".join(class_names).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # NumPy writes no dates into it
    return content.getvalue()


def load_npz(
    model: keras.Model, path: str | Path, *, leftover_prefixes: Sequence[str] = (), sha256: str | None = None
) -> list[str]:
    """Fills ``model`` from a file of ``npz_bytes``; returns the class names it holds.

    Raises:
        WeightsError: no such file, not the file that ``sha256`` belongs to, or variables that do not fit.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in (None, found):
            raise WeightsError(f"{path}: damaged: its SHA-256 is {found}, expected {sha256}; install the package again")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            values = {key: file[key] for key in file}
    except WeightsError:
        raise
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"cannot be read: {error}") from error
    names = values.pop(CLASS_NAMES, np.zeros(0, np.uint8)).tobytes().decode()
    assign(npz_variables(model), values, leftover_prefixes=leftover_prefixes)
    return names.split("\n") if names else []


def npz_class_names(path: Path) -> list[str]:
    """The class names in a file of ``npz_bytes``."""
    with np.load(path, allow_pickle=False) as file:
        return file[CLASS_NAMES].tobytes().decode().split("\n")


def npz_variables(model: keras.Model) -> dict[str, Any]:
    """The keys of ``npz_bytes``, each with the model's variable."""
    return {f"{layer.name}/{variable.name}": variable for layer in model.layers for variable in layer.weights}


def load_own(model: keras.Model, weights: str | Path) -> None:
    """Fills a network without published weights from a file of this package.

    Args:
        model: the network.
        weights: a ``.weights.h5`` file of the same network, or a ``.keras`` file (a classifier on it, say) whose
            layers of the same names have the values.

    Raises:
        WeightsError: neither, or values that do not fit.
    """
    path = Path(weights).expanduser()
    if path.suffix == ".h5":
        with errors_name(str(weights)):
            load_h5(model, path)
    elif path.suffix == ".keras":
        there = {layer.name: layer for layer in open_keras(weights).layers}
        ours, values = {}, {}
        for layer in model.layers:
            for number, variable in enumerate(layer.weights):
                ours[f"{layer.name}/{number}"] = variable
            for number, variable in enumerate(there[layer.name].weights if layer.name in there else []):
                values[f"{layer.name}/{number}"] = np.asarray(variable)
        with errors_name(str(weights)):
            assign(ours, values)
    else:
        raise WeightsError(
            f"weights={str(weights)!r}: {model.name} has no published weights; give a .weights.h5 or .keras file of "
            "your own, or None to train it from scratch"
        )


def open_keras(path: str | Path, *, argument: str = "weights") -> keras.Model:
    """The model in a .keras or .h5 file, in Keras's safe mode.

    Args:
        path: the file.
        argument: as what the caller's user gave it, for errors.

    Raises:
        WeightsError: no such file, a damaged one, or none that this Keras can load.
    """
    path = Path(path).expanduser()
    kind = ".h5" if path.suffix.lower() == ".h5" else ".keras"
    if not path.is_file():
        raise WeightsError(f"{argument}={str(path)!r}: {'a folder' if path.is_dir() else 'no such file'}")
    if kind == ".keras" and not zipfile.is_zipfile(path):  # Keras would say that it is not there
        raise WeightsError(f"{argument}={str(path)!r}: is damaged, cut off or no .keras file, which is a zip archive")
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file it is whatever zipfile, json, HDF5 or a layer stumbles over
        reason = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
        raise WeightsError(f"{argument}={str(path)!r}: cannot be loaded as a {kind} file: {reason}") from error


def load_h5(model: keras.Model, path: Path) -> None:
    """Fills ``model`` from a Keras ``.weights.h5`` file of the same network, which may have a classifier on top.

    Keras takes what it looks for and passes over the rest, and takes NaN; here all of the file must be accounted for.

    Raises:
        WeightsError: no such file, not of this network, or not finite.
    """
    if not path.is_file():
        raise WeightsError("no such file")
    with read_errors(path):
        arrays = {name: array for name, array in read_h5(path).items() if not name.lstrip("_").startswith(COMPILED)}
    _check_finite(arrays)
    ours = Counter(tuple(v.shape) for v in model.weights if "float" in str(v.dtype))
    theirs = Counter(array.shape for array in arrays.values())
    surplus, missing = sorted((theirs - ours).elements()), sorted((ours - theirs).elements())
    if missing or (surplus and not _is_head(surplus, model.output_shape[-1])):
        wrong = f"missing: {_some(missing)}" if missing else f"left over: {_some(surplus)}"
        raise WeightsError(f"does not fit the model {model.name!r}: arrays of these shapes are {wrong}")
    try:
        model.load_weights(str(path))
    except (ValueError, OSError, KeyError) as error:
        raise WeightsError(f"does not fit the model {model.name!r}: {error}") from error
    beyond = [weight.path for weight in model.weights if not np.isfinite(np.asarray(weight)).all()]
    if beyond:
        raise WeightsError(f"has numbers that are not finite in {', '.join(beyond[:5])}")


def _some(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes[:5])) + (f" and {len(shapes) - 5} more" if shapes[5:] else "")


def _is_head(shapes: list[tuple[int, ...]], width: int) -> bool:
    """Whether arrays of these shapes are a dense layer on ``width`` numbers."""
    bias, kernel = sorted(shapes, key=len) if len(shapes) == 2 else ((), ())
    return len(bias) == 1 and kernel == (width, *bias)


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an HDF5 file, by their path in it."""
    import h5py

    arrays: dict[str, np.ndarray] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            arrays[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return arrays


def read_keras2(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a weights file of Keras 2, by their path in it; empty if it is none."""
    import h5py

    with read_errors(path):
        with h5py.File(path) as file:
            if not any(name.startswith("layer_names") for name in file.attrs):  # many are cut in pieces
                return {}
        return read_h5(path)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """What HDF5's library raises of a file that is none or is damaged."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(f"{path.name} cannot be read (damaged, cut off or no HDF5 file): {error}") from error


@contextmanager
def saved_model_folder(weights: str | Path) -> Iterator[Path]:
    """The local SavedModel folder behind a handle, folder or archive (unpacked for the time of the block)."""
    text, path = str(weights), Path(weights).expanduser()
    if text.startswith(("http://", "https://")):
        if text.endswith(FILES):
            raise WeightsError(f"weights={text!r}: the address of a file; fetch it and give the file")
        with opened_handle(text, check_saved_model) as folder:
            yield folder
    elif text.startswith(REMOTE):
        yield _resolve_handle(text)
    elif path.is_dir():
        with errors_name(text):
            check_saved_model(path)
        yield path
    elif is_archive(path):
        with tempfile.TemporaryDirectory(prefix="tfaudiotl-") as unpacked:
            with errors_name(text):
                folder = unpack(path, Path(unpacked))
                check_saved_model(folder)
            yield folder
    else:
        raise WeightsError(
            f"weights={text!r}: neither a TF Hub handle (https://...), nor an existing SavedModel folder or archive "
            f"({', '.join(ARCHIVES)})"
        )


def _resolve_handle(handle: str) -> Path:
    """A handle of cloud storage, which tensorflow_hub resolves."""
    try:
        import tensorflow_hub
    except ImportError as error:
        raise WeightsError(f"weights={handle!r}: needs tensorflow_hub: pip install 'tfaudiotl[hub]'") from error
    with errors_name(handle):
        try:
            folder = Path(tensorflow_hub.resolve(handle))
        except Exception as error:  # the resolvers raise whatever their transport raises
            raise WeightsError(f"tensorflow_hub cannot get it ({type(error).__name__}: {error})") from error
        check_saved_model(folder)
    return folder


def check_saved_model(folder: Path) -> None:
    """WeightsError unless ``folder`` has the variables of a SavedModel."""
    if not (folder / "variables" / "variables.index").is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise WeightsError(f"no SavedModel: lacks variables/variables.index (found: {found})")


def read_saved_model(folder: Path) -> dict[str, np.ndarray]:
    """All variables of a SavedModel folder, by checkpoint key."""
    import tensorflow as tf

    check_saved_model(folder)
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        keys = [key for key in reader.get_variable_to_shape_map() if key.endswith("VARIABLE_VALUE")]
        return {key: reader.get_tensor(key) for key in keys}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise WeightsError(f"its variables cannot be read (damaged or cut off): {error}") from error


def open_saved_model(folder: Path) -> Any:
    """``tf.saved_model.load``; WeightsError if what is there is damaged."""
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(folder))
    except (tf.errors.OpError, OSError, KeyError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise WeightsError(f"cannot be loaded as a SavedModel (is it damaged or cut off?): {error}") from error


def is_checkpoint(weights: str | Path) -> bool:
    """Whether ``weights`` names a bare TensorFlow checkpoint: a ``.ckpt`` file (version 1) or a prefix of files."""
    path = Path(weights).expanduser()
    return path.with_name(f"{path.name}.index").is_file() or (path.is_file() and ".ckpt" in path.name)


def read_slim_checkpoint(weights: str | Path, scope: str) -> dict[str, np.ndarray]:
    """The variables under ``scope`` ("vggish/") of a TF-Slim checkpoint; optimiser state is passed over."""
    import tensorflow as tf

    optimiser = ("/Adam", "/Adam_1", "/Momentum", "/ExponentialMovingAverage")
    try:
        reader = tf.train.load_checkpoint(str(Path(weights).expanduser()))
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith(scope) and not n.endswith(optimiser)]
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise WeightsError(f"cannot be read (damaged or cut off): {error}") from error


def assign(
    variables: Mapping[str, Any],
    values: Mapping[str, np.ndarray],
    *,
    leftover_prefixes: Sequence[str] = (),
) -> None:
    """Gives each variable its value, after all names and shapes were matched one by one."""
    problems = [f"missing: {key}" for key in variables if key not in values]
    problems += [
        f"shape of {key}: {values[key].shape} there, {tuple(variable.shape)} here"
        for key, variable in variables.items()
        if key in values and values[key].shape != tuple(variable.shape)
    ]
    allowed = tuple(leftover_prefixes)
    left = [key for key in values if key not in variables and not (allowed and key.startswith(allowed))]
    problems += [f"left over: {key}" for key in sorted(left)]
    problems += [f"not finite: {key}" for key in values if key not in left and not np.isfinite(values[key]).all()]
    if problems:
        shown = "\n  ".join(problems[:10] + ([f"... and {len(problems) - 10} more"] if len(problems) > 10 else []))
        raise WeightsError(f"the variables do not fit the network:\n  {shown}")
    for key, variable in variables.items():
        variable.assign(values[key])


def _check_finite(values: Mapping[str, np.ndarray]) -> None:
    if bad := [key for key, value in values.items() if not np.isfinite(value).all()]:
        raise WeightsError(f"not finite: {', '.join(bad[:5])}")


def _class_names(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
