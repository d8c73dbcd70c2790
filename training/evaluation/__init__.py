"""Measuring, each a command.

The paper's protocols: `points` (clicks, boxes) · `interactive` (NoC, a curve) · `edges` ·
`proposals` · `instances` (from boxes) · `fairness` · `ablation` (checkpoints side by side).
Ours: `text` (phrases, presence) · `names` (never trained on) · `transfer` (by example) ·
`big_photos` (by tiles).
"""
