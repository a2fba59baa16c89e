"""Models as rows, and their prototxt.

zoo, paper: the models; the paper's tables as data.
nets, solvers, generate: rows to prototxt.
derive: deploy and evaluation nets from a train_val net.
prototxt: reading prototxt, with the positions of its fields.
"""
