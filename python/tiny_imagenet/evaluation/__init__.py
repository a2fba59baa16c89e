"""From weights to predictions, and from predictions to scores.

predict, evaluate, ahead: weights and images to probabilities; to scores; batches prepared in advance.
classify, photos, submission: image files to classes; shrinking large ones; the challenge's test file.
predictions, metrics, ensemble: the predictions file; scores and their columns; averages of predictions.
provenance, data_source: how predictions were made, and names for tables; the data behind them.
features: values of a layer for images.
"""
