"""Phrases: what a photo is asked, and the tallies of the answers."""
