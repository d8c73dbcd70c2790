"""Two checkouts of this project timed side by side on the same photo."""
