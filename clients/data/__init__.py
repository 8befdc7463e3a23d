"""A site's own files read as labelled examples: arrays, tables, folders of images."""
