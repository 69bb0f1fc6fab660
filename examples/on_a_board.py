"""Run an exported classifier on a board: LiteRT and soundfile alone, without tfaudiotl and TensorFlow.

    pip install ai-edge-litert soundfile
    python on_a_board.py model.tflite street.wav

The file carries its labels and its sample rate: a .tflite with metadata is a ZIP archive too.
"""

import sys
import zipfile

import soundfile
from ai_edge_litert.interpreter import Interpreter

model, recording = sys.argv[1:]
with zipfile.ZipFile(model) as archive:
    labels = archive.read("labels.txt").decode("utf-8").splitlines()
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
(given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
samples = given["shape"][-1]

with soundfile.SoundFile(recording) as sound:
    if sound.samplerate != 16_000:
        sys.exit(f"{recording} has {sound.samplerate} Hz; the model hears 16000 Hz")
    # Windows that overlap by half; the last one is filled with zeros.
    blocks = sound.blocks(samples, samples // 2, dtype="float32", always_2d=True, fill_value=0.0)
    for number, block in enumerate(blocks):
        interpreter.set_tensor(given["index"], block.mean(axis=1).reshape(given["shape"]))
        interpreter.invoke()
        scores = interpreter.get_tensor(wanted["index"])[0]
        best = int(scores.argmax())
        start = number * (samples - samples // 2) / sound.samplerate
        print(f"{start:6.2f} s  {labels[best]:24s} {scores[best]:.3f}")
