"""``tfaudiotl demo`` with several seeds: accuracy on the validation clips, agreement of the .tflite file, seconds.

python -m benchmarks.demo_seeds [--seeds 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tfaudiotl.demo import run_demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    for seed in range(parser.parse_args().seeds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            result = run_demo(Path(folder) / "demo", seed=seed, echo=lambda line: None)
            print(
                f"seed {seed}: accuracy {result.accuracy:.4f} on {result.clips} clips, "
                f".tflite agrees on {result.agreement:.4f} of 300, {time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
