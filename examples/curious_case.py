"""The curious case: does a network trained to tell speakers apart transfer to digits? And which layer would have?

    python examples/rawnet2_speakers.py fsdd/recordings -o speakers.keras
    python examples/curious_case.py fsdd/recordings speakers.keras [--weights audioset]

On FSDD's names ``{digit}_{speaker}_{index}``, with indices 0 to 4 as the test and 5 to 9 for training: a linear head on
every layer of RawNet2 as it was trained on speakers, of a RawNet2 that was not trained at all, and of YAMNet. The row
"embedding" is the classic transfer: replace the last layer, freeze all else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras

import tfaudiotl as tl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("speakers", type=Path)
    parser.add_argument("--weights", default="audioset")
    parser.add_argument("--train", type=int, default=5, help="recordings of each digit and speaker to train on")
    options = parser.parse_args()
    paths = [path for path in sorted(options.folder.glob("*.wav")) if int(path.stem.split("_")[2]) < 5 + options.train]
    test = [row for row, path in enumerate(paths) if int(path.stem.split("_")[2]) < 5]
    split = [([row for row in range(len(paths)) if row not in set(test)], test)]
    with tempfile.TemporaryDirectory() as scratch:
        untrained = Path(scratch) / "untrained.keras"
        keras.utils.set_random_seed(0)
        keras.models.clone_model(tl.load_model(options.speakers)).save(untrained)
        networks = {
            "RawNet2, trained on speakers": ("rawnet2", str(options.speakers)),
            "RawNet2, untrained": ("rawnet2", str(untrained)),
            "YAMNet": ("yamnet", options.weights),
        }
        for task, field in (("digits", 0), ("speakers", 1)):
            clips = tl.Clips.from_files(paths, [path.stem.split("_")[field] for path in paths])
            for title, (backbone, weights) in networks.items():
                table = tl.probe_layers(backbone, clips, cv=split, weights=weights)
                print(f"\n{task}, {title}\n\n{table.to_markdown()}", flush=True)


if __name__ == "__main__":
    main()
