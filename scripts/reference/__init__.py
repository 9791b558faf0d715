"""The reference pages in docs/: made from the code, so that they cannot drift from it."""
