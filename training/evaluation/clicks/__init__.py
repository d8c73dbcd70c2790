"""Clicks and boxes: simulated annotators and the runs that they make."""
