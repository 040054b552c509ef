"""API doors of the policies app: templates, policies, jobs, plans and the numbers that need a plan."""
