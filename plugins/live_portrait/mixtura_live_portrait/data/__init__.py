"""Where portraits come from: drawn faces with exact labels, video clips and pictures with landmarks, and generators of both."""
