"""The figures.

figures: what all share: look, names, PNG and SVG.
curves_figure, confusion_figure: training curves; which classes are taken for which.
screening_figure: what screening drops and what it just keeps.
tsne_figure: what a layer makes of images, on a plane.
errors_figure: images that a net gets wrong.
weights_figure: first filters; PReLU slopes.
"""
