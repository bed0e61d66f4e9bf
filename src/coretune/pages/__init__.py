"""What stands on a report's page: facts gathered from a run folder by pure functions, and the page's own text."""
