"""Data sets: the public archive, the layout, screening, and the LMDBs that the nets read.

annotations, catalogue: the layout's text files; which images there are, in order, whatever their number.
dataset, image_files, sample: a data set as lists and arrays; what a JPEG or PNG says of itself; a small one.
download, safe_zip: the public archive: fetched; checked and unpacked.
screening, loading, pool, convert: which images go; batches decoded; in processes; images to LMDB.
datum, lmdb_writer: records; records written.
lmdb_pages, lmdb_reader, verify: an LMDB looked through before it is mapped; read; checked against its manifest.
"""
