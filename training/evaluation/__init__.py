"""Measuring, each a command: `python -m training.evaluation.NAME DATA ...`.

The paper's protocols: `points` (clicks, boxes; with `--interactive` NoC and a curve) · `edges` ·
`proposals` · `instances` (from boxes) · `fairness`. Ours: `text` (phrases, presence) · `transfer`
(by example) · `search` (masks by phrase and by mask) · `big_photos` (by tiles). `speed`
measures time and memory, without data sets.

Below: `figures/` means, intervals, AP, AR, tables, charts, sheets · `clicks/` and `phrases/` what a
model is asked · `edge_detection/` the BSDS benchmark.
"""
