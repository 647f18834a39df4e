"""The command line: flags, the recipe given with --config, dispatch."""
