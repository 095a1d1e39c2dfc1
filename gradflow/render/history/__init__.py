"""A training run's history as a picture: `page` puts it together, `heat` and `curves` draw its panels, `grid` and `words` know no figure."""
