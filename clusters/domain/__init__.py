"""Plain rules of the inventory, the market, actions and the ledger."""
