"""How a notebook shows a Report: one piece of HTML that needs nothing from elsewhere, for light pages and dark ones."""
