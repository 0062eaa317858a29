"""Adapters to other libraries of the field; each imports its library only when it is used."""
