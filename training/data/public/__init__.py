"""Public segmentation sets in the folders in which they are distributed.

`layout` where files should be, and what to say when they are not · `mat` MATLAB's files · then a
file for each set.
"""
