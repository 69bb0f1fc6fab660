"""Weights from where people have them: TF Hub, a SavedModel folder or archive, a Keras weights file."""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfaudiotl.errors import WeightsError

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
CLASS_NAMES = "class_names"  # key of the names in an .npz, joined by line breaks as UTF-8
REMOTE = ("http://", "https://", "gs://", "s3://", "hdfs://")


def load_into(
    model: keras.Model,
    weights: str | Path,
    *,
    variables: Mapping[str, Any],
    leftover_prefixes: Sequence[str] = (),
    class_map: str | None = None,
) -> list[str]:
    """Fills ``model`` from ``weights``; nothing is changed unless everything fits.

    Args:
        model: the Keras model.
        weights: TF Hub handle, SavedModel folder or archive, or ``.weights.h5`` file.
        variables: checkpoint key -> the model's variable, for weights that come as a checkpoint.
        leftover_prefixes: prefixes of keys which the checkpoint may have beyond ``variables``.
        class_map: name of the CSV asset (``index,mid,display_name``) that lists the classes.

    Returns:
        The class names found beside the weights; empty if there are none.

    Raises:
        WeightsError: what was looked for, where, and what to do.
    """
    if str(weights).endswith(".h5"):
        _load_h5(model, Path(weights))
        return []
    with saved_model_folder(weights) as folder:
        assign(variables, read_checkpoint(folder), leftover_prefixes=leftover_prefixes, source=str(weights))
        return _class_names(folder / "assets" / class_map) if class_map else []


def npz_bytes(model: keras.Model, *, class_names: Sequence[str] = ()) -> bytes:
    """The model's variables in float16 as the content of an ``.npz``: the same bytes for the same values.

    Args:
        model: its layers' names and their variables' names are the keys ("layer1_conv/kernel").
        class_names: kept beside them.

    Raises:
        WeightsError: a value that float16 cannot hold.
    """
    with np.errstate(over="ignore"):  # told below
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
    path = Path(path)
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if sha256 is not None and found != sha256:
            raise WeightsError(f"{path}: damaged: its SHA-256 is {found}, expected {sha256}; install the package again")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            values = {key: file[key] for key in file}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"weights={str(path)!r}: cannot be read: {error}") from error
    names = values.pop(CLASS_NAMES, np.zeros(0, np.uint8)).tobytes().decode()
    assign(npz_variables(model), values, leftover_prefixes=leftover_prefixes, source=str(path))
    return names.split("\n") if names else []


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
    path = Path(weights)
    if path.suffix == ".h5":
        _load_h5(model, path)
    elif path.suffix == ".keras":
        there = {layer.name: layer for layer in open_keras(path).layers}
        ours, values = {}, {}
        for layer in model.layers:
            for number, variable in enumerate(layer.weights):
                ours[f"{layer.name}/{number}"] = variable
            for number, variable in enumerate(there[layer.name].weights if layer.name in there else []):
                values[f"{layer.name}/{number}"] = np.asarray(variable)
        assign(ours, values, source=str(path))
    else:
        raise WeightsError(
            f"weights={str(weights)!r}: {model.name} has no published weights; give a .weights.h5 or .keras file of "
            "your own, or None to train it from scratch"
        )


def open_keras(path: str | Path) -> keras.Model:
    """The model in a .keras file; WeightsError if it cannot be loaded."""
    try:
        return keras.saving.load_model(str(path))
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise WeightsError(f"weights={str(path)!r}: cannot be loaded as a .keras file: {error}") from error


def _load_h5(model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"weights={str(path)!r}: no such file")
    try:
        model.load_weights(str(path))
    except (ValueError, OSError, KeyError) as error:
        raise WeightsError(f"weights={str(path)!r}: does not fit the model {model.name!r}: {error}") from error


@contextmanager
def saved_model_folder(weights: str | Path) -> Iterator[Path]:
    """The local SavedModel folder behind a handle, folder or archive (unpacked for the time of the block)."""
    path = Path(weights).expanduser()
    if str(weights).startswith(REMOTE):
        yield _resolve_handle(str(weights))
    elif path.is_dir():
        yield _check_folder(path, str(weights))
    elif path.is_file() and path.name.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory(prefix="tfaudiotl-") as unpacked:
            yield _check_folder(_unpack(path, Path(unpacked)), str(weights))
    else:
        raise WeightsError(
            f"weights={str(weights)!r}: neither a preset name, nor a TF Hub handle (https://...), nor an existing "
            f"SavedModel folder, archive ({', '.join(ARCHIVES)}) or .weights.h5 file"
        )


def _resolve_handle(handle: str) -> Path:
    import tensorflow_hub

    try:
        folder = Path(tensorflow_hub.resolve(handle))
    except Exception as error:  # the resolvers raise whatever their transport raises
        raise WeightsError(
            f"weights={handle!r}: TF Hub could not be reached or does not have it ({type(error).__name__}: {error}). "
            "Without a network, download the SavedModel elsewhere and pass its folder or archive as weights= "
            "(--weights on the command line), or set TFHUB_CACHE_DIR to a cache directory that already holds it"
        ) from error
    return _check_folder(folder, handle, advice=f"; the cache is broken: delete {folder} and try again")


def _check_folder(folder: Path, weights: str, *, advice: str = "") -> Path:
    if not (folder / "variables" / "variables.index").is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise WeightsError(
            f"weights={weights!r}: no SavedModel: {folder} lacks variables/variables.index (found: {found}){advice}"
        )
    return folder


def _unpack(archive: Path, target: Path) -> Path:
    """Unpacks and returns the folder that holds ``variables``, at the archive's top or one level down."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(target)
        else:
            with tarfile.open(archive) as opened_tar:
                opened_tar.extractall(target, filter="data")  # refuses paths outside the target
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise WeightsError(f"weights={str(archive)!r}: cannot be unpacked: {error}") from error
    inner = [entry for entry in target.iterdir() if (entry / "variables").is_dir()]
    return inner[0] if len(inner) == 1 and not (target / "variables").is_dir() else target


def read_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """All variables of a SavedModel folder, by checkpoint key."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        keys = [key for key in reader.get_variable_to_shape_map() if key.endswith("VARIABLE_VALUE")]
        return {key: reader.get_tensor(key) for key in keys}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise WeightsError(f"{folder}: its variables cannot be read (damaged or cut off): {error}") from error


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
        raise WeightsError(f"weights={str(weights)!r}: cannot be read (damaged or cut off): {error}") from error


def assign(
    variables: Mapping[str, Any],
    values: Mapping[str, np.ndarray],
    *,
    leftover_prefixes: Sequence[str] = (),
    source: str,
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
    problems += [f"not finite: {key}" for key in variables if key in values and not np.isfinite(values[key]).all()]
    if problems:
        shown = "\n  ".join(problems[:10] + ([f"... and {len(problems) - 10} more"] if len(problems) > 10 else []))
        raise WeightsError(f"weights={source!r}: the variables do not fit the network:\n  {shown}")
    for key, variable in variables.items():
        variable.assign(values[key])


def _class_names(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
