"""One module per corpus; each opens with its citation, licence and source, and reads files into rows."""
