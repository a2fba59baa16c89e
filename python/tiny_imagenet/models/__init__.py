"""The nine models: what they are, the prototxt they make, and what is said of any prototxt.

zoo, paper: the models as rows; the paper's tables as data.
nets, solvers, generate: rows to prototxt.
prototxt, outline, stand_in, costs: prototxt read, with its lines; a net's shapes without its weights, or its data; what
    its layers cost.
describe, drawing: the table; the picture.
net_diff, canonical, stock: what two nets differ in; what Caffe takes for the same; a net in upstream's types.
soundness, findings: what is wrong with a prototxt, and in which line.
solver_soundness, sharing, agreement: the same of solvers; of parameters that layers share; of what train_val and
    deploy compute with the same weights.
"""
