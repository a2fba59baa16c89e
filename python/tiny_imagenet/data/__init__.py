"""Data sets: the public archive, its layout, screening, and the LMDBs that the nets read.

splits, dataset, images, sample: names of the splits; classes and annotations; image files; a small data set.
download: the public archive.
screening, loading, pool, convert: dropped images; decoded batches; worker processes; conversion to LMDBs.
datum, lmdb_writer, lmdb_reader, verify: records; writing and reading LMDBs; checking them against the manifest.
"""
