"""Worlds that give captures: pictures, depth, classes and maps, recorded by programs."""
