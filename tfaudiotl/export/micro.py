"""A .tflite file as C source, for firmware that has no file system."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tfaudiotl._files import write_atomic
from tfaudiotl.tflite.audit import MICRO_OPERATORS, Audit, audit_graph
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.metadata import Metadata, read_metadata

_PER_LINE = 16

# Words that no variable may be called, of C23 and C++23, and what compilers define or expect on their own.
_WORDS = """
    alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor bool break case catch
    char char8_t char16_t char32_t class compl concept const consteval constexpr constinit const_cast continue
    co_await co_return co_yield decltype default delete do double dynamic_cast else enum explicit export extern false
    float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq
    private protected public reflexpr register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch synchronized template this thread_local throw true try typedef typeid
    typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq
    i386 linux main unix
"""
_RESERVED = frozenset(_WORDS.split())

_ALIGNAS = """#if !defined(__cplusplus) && !(defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202311L)
#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#include <stdalign.h>
#elif defined(__GNUC__)
#define alignas(bytes) __attribute__((aligned(bytes)))
#else
#error "this compiler needs its own way to align an array to 16 bytes here"
#endif
#endif"""


def c_paths(path: str | Path) -> tuple[Path, Path]:
    """Where ``write_c_array`` writes: header and source.

    Raises:
        ValueError: the name has characters that no ``#include`` can hold.
    """
    path = Path(path)
    if re.search(r'["\\\x00-\x1f\x7f]', path.stem):
        raise ValueError(f"path={str(path)!r}: quotes, backslashes and control characters cannot stand in C's #include")
    return path.with_suffix(".h"), path.with_suffix(".cc")


def c_name(path: str | Path) -> str:
    """The array's name: the file's, as C and C++ take it ("8bit-model.tflite" -> "model_8bit_model")."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", Path(path).stem).strip("_")
    return name if name[:1].isalpha() and name not in _RESERVED else f"model_{name}".rstrip("_")


def write_c_array(path: str | Path) -> tuple[Path, Path]:
    """Writes NAME.h and NAME.cc beside a .tflite file: its bytes, class names and numbers, for C (C99 on) and C++.

    The array is aligned to 16 bytes, as TFLite Micro wants it. The header holds the operators to register, input's
    and output's shapes in a comment, and as macros their scales and zero points (of int8 files) and the numbers of the
    front-end.

    Returns:
        The paths of header and source.

    Raises:
        ValueError: the name has characters that no ``#include`` can hold.
    """
    path = Path(path)
    header, source = c_paths(path)
    content = path.read_bytes()
    graph, metadata = Graph(content), read_metadata(content)
    name = c_name(path)
    labels = metadata.labels if metadata else ()
    text = _header(name, audit_graph(graph, path.name), _macros(name, graph, metadata))
    return write_atomic(header, text), write_atomic(source, _source(name, header.name, content, labels))


def _header(name: str, audit: Audit, macros: list[str]) -> str:
    guard = f"{name.upper()}_H_"
    missing = sorted(set(audit.kinds) - MICRO_OPERATORS)
    return f"""// {audit.file}: written by tfaudiotl.
// Input {", ".join(audit.inputs)}; output {", ".join(audit.outputs)}.
// Operators: {", ".join(sorted(audit.kinds))}.
// Not in TFLite Micro: {", ".join(missing) or "none"}.
// Activations take at least {audit.arena} bytes at once; give the arena some more.
#ifndef {guard}
#define {guard}

{"".join(f"#define {macro}{chr(10)}" for macro in macros)}
#ifdef __cplusplus
extern "C" {{
#endif

extern const unsigned char {name}[];
extern const unsigned int {name}_len;
extern const char* const {name}_labels[];
extern const unsigned int {name}_labels_len;

#ifdef __cplusplus
}}
#endif

#endif  // {guard}
"""


def _source(name: str, header: str, content: bytes, labels: tuple[str, ...]) -> str:
    rows = [content[start : start + _PER_LINE] for start in range(0, len(content), _PER_LINE)]
    lines = "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    texts = "\n".join(f"  {_c_string(label)}," for label in labels) or "  0,"
    return f"""#include "{header}"

{_ALIGNAS}

alignas(16) const unsigned char {name}[] = {{
{lines}
}};
const unsigned int {name}_len = {len(content)};
const char* const {name}_labels[] = {{
{texts}
}};
const unsigned int {name}_labels_len = {len(labels)};
"""


def _macros(name: str, graph: Graph, metadata: Metadata | None) -> list[str]:
    """Names and values of what firmware computes with: real = (code - ZERO_POINT) * SCALE; and the front-end's."""
    found = []
    for end, tensor in (("INPUT", graph.inputs[0]), ("OUTPUT", graph.outputs[0])):
        if coding := graph.coding(tensor):
            found += [(f"{end}_SCALE", coding[0]), (f"{end}_ZERO_POINT", coding[1])]
    if metadata:
        numbers = dict(metadata.settings.get("frontend", {}))
        numbers.setdefault("sample_rate", metadata.sample_rate)
        found += [(key.upper(), value) for key, value in numbers.items() if isinstance(value, (int, float))]
    return [f"{name.upper()}_{key} {_c_number(value)}" for key, value in found]


def _c_number(value: float) -> str:
    """A literal: a float32 with as many digits as it takes, or a whole number; in brackets if negative."""
    if isinstance(value, (bool, int)):
        return f"({int(value)})" if value < 0 else str(int(value))
    text = str(np.float32(value))
    return f"{text}f" if value >= 0 else f"({text}f)"


def _c_string(text: str) -> str:
    """A C string literal in UTF-8; three-digit octal escapes, which no following digit can lengthen."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{plain}"'
