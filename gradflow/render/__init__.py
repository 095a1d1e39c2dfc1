"""Views of a Report: each module turns one into text or bytes, and none knows another. Imports no torch."""
