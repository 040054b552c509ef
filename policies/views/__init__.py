"""Pages of money and decisions: the dashboard, plans, and the palette that jumps anywhere."""
