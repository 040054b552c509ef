"""What agents and their owners may do: keys, presence, reports, delivery of actions."""
