"""The splits of a data set, as folders of images and as LMDBs."""

FOLDERS = ("train", "val", "test")  # of images
SPLITS = ("train", "train_screened", "val", "test")  # NAME.lmdb of a converted data set
LABELLED = SPLITS[:3]  # the test images of the challenge have no labels
