"""Seeing and painting scenes in notebooks and browsers."""
