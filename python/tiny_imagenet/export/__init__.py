"""Nets for other programs.

stock: a net in upstream Caffe's own layer types.
"""
