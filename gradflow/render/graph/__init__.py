"""Views of a diagram, strangers to each other: a table for people, FX code, Graphviz DOT. Each takes a Diagram and returns text."""
