"""Profiles in the formats other programs read: one module a format, values in, bytes out."""
