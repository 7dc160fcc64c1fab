"""What several demos use: errors in the page, files of a session, uploads, checkpoints, jobs, examples, looks."""
