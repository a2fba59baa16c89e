"""From weights to predictions, and from predictions to scores.

evaluator, evaluate, predict: probabilities of an LMDB; predictions and scores of a run; single images.
classify, submission: image files to classes; the test file of the challenge.
predictions, metrics, ensemble: the predictions file; scores and their columns; averages of predictions.
provenance, data_source: how predictions were made, and names for tables; the data behind them.
features: activations of a layer.
"""
