"""What the verbs of the command line do; each module is imported when one of its verbs runs."""
