"""`theatre evaluate`: what a model scores on a text, how sure that is, and where it fails."""
