"""A .tflite file as C source, for firmware that has no file system."""

from __future__ import annotations

import re
from pathlib import Path

from tfaudiotl._files import write_atomic
from tfaudiotl.export.audit import MICRO_OPERATORS, audit_tflite
from tfaudiotl.export.metadata import read_metadata

_PER_LINE = 16


def write_c_array(path: str | Path) -> tuple[Path, Path]:
    """Writes NAME.h and NAME.cc beside a .tflite file: its bytes, class names and operators.

    The array is aligned to 16 bytes, as TFLite Micro wants it. The header holds the input's and output's
    shapes and scales in a comment, and the operators to register.

    Returns:
        The paths of header and source.
    """
    path = Path(path)
    audit, content = audit_tflite(path), path.read_bytes()
    metadata = read_metadata(content)
    name = re.sub(r"\W", "_", path.stem)
    guard = f"{name.upper()}_H_"
    labels = metadata.labels if metadata else ()
    missing = sorted(set(audit.kinds) - MICRO_OPERATORS)
    header = f"""// {path.name}: written by tfaudiotl.
// Input {", ".join(audit.inputs)}; output {", ".join(audit.outputs)}.
// Operators: {", ".join(sorted(audit.kinds))}.
// Not in TFLite Micro: {", ".join(missing) or "none"}.
// Activations take at least {audit.arena} bytes at once; give the arena some more.
#ifndef {guard}
#define {guard}

extern const unsigned char {name}[];
extern const unsigned int {name}_len;
extern const char* const {name}_labels[];
extern const unsigned int {name}_labels_len;

#endif  // {guard}
"""
    rows = [content[start : start + _PER_LINE] for start in range(0, len(content), _PER_LINE)]
    lines = "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    texts = "\n".join(f"  {_c_string(label)}," for label in labels) or "  nullptr,"
    source = f"""#include "{path.stem}.h"

alignas(16) const unsigned char {name}[] = {{
{lines}
}};
const unsigned int {name}_len = {len(content)};
const char* const {name}_labels[] = {{
{texts}
}};
const unsigned int {name}_labels_len = {len(labels)};
"""
    return write_atomic(path.with_suffix(".h"), header), write_atomic(path.with_suffix(".cc"), source)


def _c_string(text: str) -> str:
    """A C string literal in UTF-8; three-digit octal escapes, which no following digit can lengthen."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{plain}"'
