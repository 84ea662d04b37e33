"""What is built of the command line's own parser and the schemas: completions, the manual page, the site."""
