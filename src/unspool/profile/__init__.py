"""Counted stacks as columns: call tree, self and total per function, difference of two."""
