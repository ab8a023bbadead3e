"""One file per piece of the world. Only bootstrap imports these; they never import each other."""
