"""Measuring, each a command.

`points` (clicks, boxes) · `text` (phrases, presence) · `names` (never trained on) · `transfer` (by
example) · `big_photos` (by tiles) · `proposals` (AR of ranked masks) · `instances` (AP from boxes)
"""
