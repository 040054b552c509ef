"""Write side of the inventory, the market, actions and the ledger."""
