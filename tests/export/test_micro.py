"""The C source of a .tflite file: compilers take it, whatever the file is called, and it holds what firmware needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.backbones import network, sounds
from tfaudiotl.export.micro import c_name, write_c_array
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.tflite.audit import MICRO_OPERATORS
from tfaudiotl.tflite.litert import decode, encode

NAMES = ("8bit-model", "class", "_Model__2.1", "Vögel", "鳥", "main", "my net")
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
MAIN = """
#include <stdio.h>
#include "%(header)s"
int main(void) {
  printf("%%u %%u %%s %%d %%.9g %%d\\n", %(name)s_len, %(name)s_labels_len, %(name)s_labels[0], %(name)s[4],
         (double)%(upper)s_INPUT_SCALE, %(upper)s_INPUT_ZERO_POINT);
  return (int)((unsigned long)(const void*)%(name)s %% 16u);
}
"""


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tflite(
        network("yamnet_mini"),
        tmp_path_factory.mktemp("micro") / "m.tflite",
        quantize="int8_io",
        input="patches",
        calibrate=sounds("yamnet_mini"),
    )


@pytest.mark.parametrize("language", [("gcc", "-x", "c", "-std=c99"), ("g++", "-x", "c++", "-std=c++11")])
@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_without_a_warning_whatever_its_name(
    name: str, language: tuple[str, ...], int8_file: Path, tmp_path: Path
) -> None:
    if shutil.which(language[0]) is None:
        pytest.skip(f"no {language[0]} here")
    path = tmp_path / f"{name}.tflite"
    shutil.copy(int8_file, path)
    header, source = write_c_array(path)
    variable = c_name(path)
    main = tmp_path / "main.c"
    main.write_text(MAIN % {"header": header.name, "name": variable, "upper": variable.upper()}, encoding="utf-8")
    command = [*language, *STRICT, str(source), str(main), "-o", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)
    run = subprocess.run([tmp_path / "run"], check=True, capture_output=True, text=True)
    size, labels, first, letter, scale, zero = run.stdout.split()
    assert (int(size), int(labels), first, chr(int(letter))) == (path.stat().st_size, 3, "a", "T")
    codes = {"dtype": np.int8, "quantization": (float(scale), int(zero))}  # what firmware computes with is in the file
    from ai_edge_litert.interpreter import Interpreter

    (taken,) = Interpreter(str(path)).get_input_details()
    assert codes["quantization"] == pytest.approx(taken["quantization"], rel=1e-7)
    np.testing.assert_allclose(decode(encode(np.array([-5.0, 0.0, 1.0]), codes), codes), [-5, 0, 1], atol=float(scale))


def test_the_header_has_the_numbers_of_ends_and_front_end(int8_file: Path) -> None:
    text = write_c_array(int8_file)[0].read_text(encoding="utf-8")
    assert "#define M_OUTPUT_SCALE 0.00390625f\n" in text
    assert "#define M_OUTPUT_ZERO_POINT (-128)\n" in text
    for line in ("SAMPLE_RATE 16000", "WINDOW 400", "HOP 160", "MEL_BANDS 64", "LOG_OFFSET 0.001f", "PATCH_HOP 48"):
        assert f"#define M_{line}\n" in text
    assert open_artifact(int8_file).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("path", "name"),
    [("8bit-model", "model_8bit_model"), ("class", "model_class"), ("鳥", "model"), ("a__b_", "a_b"), ("Net2", "Net2")],
)
def test_names_are_words_of_c(path: str, name: str) -> None:
    assert c_name(f"{path}.tflite") == name


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_name_that_no_include_takes_is_refused_before_the_export(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path=.*cannot stand in C's #include"):
        export_tflite(network("yamnet_mini"), tmp_path / f"{name}.tflite", c_array=True)
    assert not list(tmp_path.iterdir())


def test_tflite_micro_has_what_its_resolver_adds() -> None:
    has = {"SQRT", "SQUARE", "LOG", "GATHER", "RESIZE_BILINEAR", "MINIMUM", "LEAKY_RELU", "BATCH_MATMUL", "REDUCE_MIN"}
    assert has <= MICRO_OPERATORS
    assert not {"RFFT2D", "COMPLEX_ABS", "CUSTOM", "TILE", "POW"} & MICRO_OPERATORS
    from ai_edge_litert import schema_py_generated as schema

    assert set(vars(schema.BuiltinOperator)) >= MICRO_OPERATORS  # no name is misspelt
