"""One question a file, each a pure function of the run frame: `rows(frame, ...)`."""
