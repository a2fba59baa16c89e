"""A pytest plugin: the names that unittest lost in Python 3.12, which upstream's tests of 2018 use."""

import unittest

for old, new in {
    "assertEquals": "assertEqual",
    "assertRaisesRegexp": "assertRaisesRegex",
    "assertRegexpMatches": "assertRegex",
    "assertItemsEqual": "assertCountEqual",
}.items():
    setattr(unittest.TestCase, old, getattr(unittest.TestCase, new))
