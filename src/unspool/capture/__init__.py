"""Samples over time: what runs, where its addresses lie, and what was lost."""
