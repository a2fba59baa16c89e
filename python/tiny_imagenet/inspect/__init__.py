"""Descriptions, drawings, differences and checks of nets.

describe, drawing: a net as a table; as a picture.
outline, costs: the layers' shapes without weights or data; their multiply-adds and memory.
shape_stubs, shape_errors: replacements for layers without their data; why a layer has no shape.
lint, solver_lint, findings: checks of nets; of solvers; their results with file, line and column.
diff, normalize, layer_fields: differences between nets; equal settings in one form; each layer type's parameters.
"""
