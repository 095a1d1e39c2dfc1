"""Observations -> the report's records: layers, skips, highways, and what could not be seen. Every layer and parameter is measured or says why not."""

from gradflow.accounts.diagram import draw
from gradflow.accounts.layers import account_layers
from gradflow.accounts.opaque import account_opaque
from gradflow.accounts.skips import account_highways, account_skips

__all__ = ["account_highways", "account_layers", "account_opaque", "account_skips", "draw"]
