"""Before and around a run: checks of the config, resources, costs, messages."""
