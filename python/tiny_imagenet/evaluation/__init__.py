"""From weights to predictions, and from predictions to scores.

predict, evaluate, ahead: weights and images to probabilities; to scores; batches made while the net computes.
classify, submission: image files to classes; the challenge's test file.
predictions, metrics, ensemble, members: the predictions file; scores; averages; of files or run folders.
pedigree: what made predictions: run, iteration, split, crops; whether it stands; what to call it.
origin: the data they are of: its folder, split and classes.
features: what a layer makes of images.
"""
