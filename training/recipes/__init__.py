"""Recipes: typed settings and the steps that use them."""
