"""Train, inspect, edit and ensemble the Caffe models of the Tiny ImageNet Visual Recognition Challenge paper."""

__version__ = "0.1.0"
