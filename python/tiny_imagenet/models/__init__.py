"""Models as rows, and the prototxt they make.

zoo, paper: the models; the paper's tables as data.
nets, solvers, generate: rows to prototxt.
derive: deploy and evaluation nets from a train_val net.
prototxt: reading prototxt, with the lines of its fields.
"""
