"""Everything that reads a net for a person.

describe, drawing: the table; the picture.
outline, stand_in, costs: shapes of a net without its weights or data; the cost of its layers.
net_diff, canonical: differences between two nets; equal settings in one form.
soundness, solver_soundness, sharing, agreement, findings: problems of a net, a solver, shared parameters, and of a
    train_val and deploy pair, with their lines.
"""
