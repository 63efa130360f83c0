"""The two machines as data, written by hand from specs/design.md, and the code that draws them."""
