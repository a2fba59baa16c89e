"""Figures, and a report as one HTML page.

page: the page.
folders, results: run folders; the table of results.
mistakes, nets: confusion, worst classes and errors; layers and drawings.
figures: style and files shared by all figures.
confusion_figure, curves_figure, errors_figure: confusion matrix; training curves; misclassified images.
screening_figure, tsne_figure, weights_figure: screened images; features by t-SNE; filters and PReLU slopes.
"""
