"""Forms of the pages of policies, templates and what-ifs: they check shape, services check rules."""
