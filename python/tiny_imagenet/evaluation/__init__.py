"""From weights to predictions, and from predictions to scores.

evaluator, evaluate, predict: probabilities of an LMDB; predictions and scores of a run; single images.
classify, submission: image files to classes; the test file of the challenge.
predictions, metrics, ensemble, members: the predictions file; scores; averages; of files or run folders.
pedigree: what made predictions: run, iteration, split, crops; whether it stands; what to call it.
origin: the data they are of: its folder, split and classes.
features: activations of a layer.
"""
