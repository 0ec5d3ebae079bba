"""Power cuts: what the disk holds after one, and whether the product still keeps its promises. See __main__.py."""
