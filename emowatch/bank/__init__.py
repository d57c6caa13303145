"""Heads, their file, their card."""

from emowatch.bank.card import BankCard
from emowatch.bank.library import list_banks, load_bank
from emowatch.bank.probe_bank import ProbeBank

__all__ = ["BankCard", "ProbeBank", "list_banks", "load_bank"]
