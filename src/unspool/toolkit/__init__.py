"""The SFrame toolkit: show, check, make, compare and count the stack trace data of a file."""
