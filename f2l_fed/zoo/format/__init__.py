"""The file formats of a zoo: manifest, commit log, shards and sealed JSON."""
