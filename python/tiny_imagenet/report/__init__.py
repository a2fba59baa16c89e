"""The report: one page of HTML.

page: the page.
folders, ensembles: what run folders hold; what ensemble.py --json printed.
scores, results: a row of its table; the table, and what is best.
curves: those of all runs, or of each model.
predictions, gallery: what predictions show: confusion, the worst classes; the images that are wrong.
nets, values: nets as tables and drawings; values of JSON files as text.
confusion_figure, curves_figure, errors_figure, figures, screening_figure, tsne_figure, weights_figure: to be sorted.
"""
