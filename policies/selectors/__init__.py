"""Read side of templates, policies, jobs and plans."""
