"""Observations -> the report's records: layers, skips, highways. Every layer and parameter is measured or says why not."""

from gradflow.accounts.layers import account_layers
from gradflow.accounts.skips import account_highways, account_skips

__all__ = ["account_highways", "account_layers", "account_skips"]
