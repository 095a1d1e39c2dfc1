"""GitHub-flavoured markdown: what every page of it shares, and a Report as the comment on a pull request."""
