"""Your own sound classifier in plain Keras: ``python examples/classify_folder.py SOUNDS WEIGHTS OUT``.

SOUNDS has one sub-folder of recordings per class; WEIGHTS is "audioset" (TF Hub), or a local copy of YAMNet's
SavedModel.
"""

from __future__ import annotations

import sys

import keras

import tfaudiotl as tl


def main(sounds: str, weights: str, out: str) -> None:
    clips = tl.Clips.from_directory(sounds)
    train, test = clips.split(test=0.2)  # test is reported, so it must not decide when to stop
    train, val = train.split(val=0.15)
    model = tl.build_classifier("yamnet", class_names=clips.class_names, weights=weights, hidden=(128,), dropout=0.2)
    model.summary(show_trainable=True)
    model.fit(
        train.dataset(batch_size=32, shuffle=True, cache=True),
        validation_data=val.dataset(cache=True),
        class_weight=train.class_weights(),
        epochs=10,
        callbacks=[keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)],
    )
    print(tl.evaluate(model, test).to_markdown())
    model.save(f"{out}.keras")
    tl.export_saved_model(model, f"{out}_saved_model", overwrite=True)
    tl.export_tflite(model, f"{out}.tflite", overwrite=True)
    for event in tl.Predictor(model).predict_file(test.paths[0]):
        print(event)


if __name__ == "__main__":
    main(*sys.argv[1:4])
