"""Small generated clusters over every kind of constraint, and the laws that each plan for them must keep."""
