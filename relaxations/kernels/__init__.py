"""The hot loops of bound passes: a reference in plain torch, and faster versions chosen at run time."""
