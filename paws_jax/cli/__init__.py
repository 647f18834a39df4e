"""The command line: flags, --config, dispatch of tasks."""
